"""A small OpenSim model, written in the format of version 4 and, in part, of version 3."""

ONE = "<LinearFunction name='function'><coefficients>1 0</coefficients></LinearFunction>"
CUBIC = "<PolynomialFunction name='function'><coefficients>0.02 -0.05 0.1 0.01</coefficients></PolynomialFunction>"
SPLINE = (
    "<SimmSpline name='function'><x>-2.1 -1.7 -1.0 -0.5 0 0.3 1.2</x><y>-0.003 0.002 0.004 -0.01 0 0.008 0.02</y></SimmSpline>"
)
SCALED = f"<MultiplierFunction name='function'><function>{SPLINE}</function><scale>1.3</scale></MultiplierFunction>"
ZERO = "<Constant name='function'><value>0</value></Constant>"
STILL = "<Constant name='function'><value>0.013</value></Constant>"


def body(name, mass, com, inertia):
    return f"<Body name='{name}'><mass>{mass}</mass><mass_center>{com}</mass_center><inertia>{inertia}</inertia></Body>"


def coordinate(name, default=0.0, extra=""):
    return f"<Coordinate name='{name}'><default_value>{default}</default_value><range>-2 2</range>{extra}</Coordinate>"


def axis(name, direction, function, follows=""):
    return (
        f"<TransformAxis name='{name}'><coordinates>{follows}</coordinates><axis>{direction}</axis>{function}</TransformAxis>"
    )


def joint(kind, name, parent, child, coordinates, before=("0 0 0", "0 0 0"), after=("0 0 0", "0 0 0"), axes=""):
    frames = "".join(
        f"<PhysicalOffsetFrame name='{own}_offset'><socket_parent>{'/ground' if own == 'ground' else '/bodyset/' + own}"
        f"</socket_parent><translation>{place}</translation><orientation>{turn}</orientation></PhysicalOffsetFrame>"
        for own, (place, turn) in ((parent, before), (child, after))
    )
    return (
        f"<{kind} name='{name}'><socket_parent_frame>{parent}_offset</socket_parent_frame><socket_child_frame>{child}_offset"
        f"</socket_child_frame><coordinates>{''.join(coordinates)}</coordinates><frames>{frames}</frames>"
        + (f"<SpatialTransform>{axes}</SpatialTransform>" if axes else "")
        + f"</{kind}>"
    )


BODIES = [
    body("pelvis", 9, "-0.07 0.01 0", "0.09 0.08 0.05 0.001 0 0"),
    body("femur", 7, "0.01 -0.16 0", "0.1 0.03 0.11 0 0 0.002"),
    body("tibia", 3, "0 -0.19 0", "0.05 0.004 0.05 0 0 0"),
    body("patella", 0.8, "0.002 0.03 0", "2e-3 1e-3 2.2e-3 0 0 0"),
    body("foot", 1.2, "0.1 0.03 0", "0.001 0.004 0.004 0 0 0"),
    body("toes", 0.2, "0.035 0.006 -0.02", "0.0001 0.0002 0.00025 0 0 0"),
    body("torso", 26, "-0.03 0.3 0", "1.1 0.7 1.2 0 0 0"),
    body("arm", 2, "0 -0.2 0", "0.02 0.004 0.02 0 0 0"),
    body("rod", 1, "0 0.1 0", "0.01 0.01 0.004 0 0 0"),
    body("plate", 1.5, "0.01 0 0.02", "0.01 0.02 0.012 0 0 0"),
]
ROOT = [("rotation1", "0 0 1", "tilt"), ("rotation2", "1 0 0", "list"), ("rotation3", "0 1 0", "turn")]
ROOT += [("translation1", "1 0 0", "tx"), ("translation2", "0 1 0", "ty"), ("translation3", "0 0 1", "tz")]
HIP = [("rotation1", "0 0 1", "flexion"), ("rotation2", "1 0 0", "adduction"), ("rotation3", "0 1 0", "rotation")]
KNEE = (
    axis("rotation1", "0 0 1", ONE, "knee") + axis("rotation2", "0 1 0", STILL) + axis("translation1", "1 0 0", SPLINE, "knee")
)
KNEE += axis("translation2", "0 1 0", SCALED, "knee") + axis("translation3", "0 0 1", STILL) + axis("rotation3", "1 0 0", ZERO)
PATELLA = axis("rotation1", "0 0 1", CUBIC, "beta") + axis("translation1", "1 0 0", SPLINE, "beta")
PATELLA += axis("translation2", "0 1 0", CUBIC, "beta") + axis("translation3", "0 0 1", ZERO)
PATELLA += axis("rotation2", "0 1 0", ZERO) + axis("rotation3", "1 0 0", ZERO)


def followed(plan):
    rest = [(f"translation{k + 1}", way) for k, way in enumerate(("1 0 0", "0 1 0", "0 0 1")) if len(plan) < 6]
    return "".join(axis(name, direction, ONE, coordinate) for name, direction, coordinate in plan) + "".join(
        axis(name, direction, ZERO) for name, direction in rest
    )


JOINTS = [
    joint(
        "PinJoint", "ankle", "tibia", "foot", [coordinate("ankle")],
        ("0 -0.4 0.01", "0.2 -0.1 0.3"), ("0.01 0.02 0", "0.1 0.3 0"),
    ),
    joint("CustomJoint", "ground_pelvis", "ground", "pelvis", [coordinate(c) for _, _, c in ROOT], axes=followed(ROOT)),
    joint(
        "CustomJoint", "hip", "pelvis", "femur", [coordinate(c) for _, _, c in HIP],
        ("-0.06 -0.07 0.08", "0.1 0.2 -0.1"), ("0 0.01 0", "0.1 0.2 -0.1"), followed(HIP),
    ),
    joint(
        "CustomJoint", "knee", "femur", "tibia", [coordinate("knee")],
        ("0 -0.4 0", "-1.6 1.4 1.5"), ("-0.01 -0.004 0", "-1.6 1.4 1.5"), KNEE,
    ),
    joint("CustomJoint", "patellofemoral", "femur", "patella", [coordinate("beta")], ("0 -0.39 0", "0 0 0"), axes=PATELLA),
    joint("WeldJoint", "mtp", "foot", "toes", [], ("0.18 0 0.01", "0 0.2 0")),
    joint("UniversalJoint", "back", "pelvis", "torso", [coordinate("bend"), coordinate("twist")], ("-0.1 0.08 0", "0 0.1 0")),
    joint("GimbalJoint", "shoulder", "torso", "arm", [coordinate(c) for c in ("a1", "a2", "a3")], ("0 0.37 0.17", "0.3 0 0")),
    joint("SliderJoint", "elbow", "arm", "rod", [coordinate("reach")], ("0 -0.3 0", "0.1 0.2 0.3"), ("0 0.05 0", "0.2 0 0")),
    joint("PlanarJoint", "grip", "rod", "plate", [coordinate(c) for c in ("p1", "p2", "p3")], ("0 0.1 0", "0.3 0.1 0")),
]  # fmt: skip
COUPLER = (
    "<CoordinateCouplerConstraint name='follow'><isEnforced>true</isEnforced><coupled_coordinates_function><LinearFunction>"
    "<coefficients>0.8 0.1</coefficients></LinearFunction></coupled_coordinates_function><independent_coordinate_names>knee"
    "</independent_coordinate_names><dependent_coordinate_name>beta</dependent_coordinate_name><scale_factor>1.5</scale_factor>"
    "</CoordinateCouplerConstraint>"
)
COORDINATES = [*("tilt", "list", "turn", "tx", "ty", "tz", "flexion", "adduction", "rotation", "knee", "beta", "ankle"), "bend"]
COORDINATES += ["twist", "a1", "a2", "a3", "reach", "p1", "p2", "p3"]


def model(bodies=BODIES, joints=JOINTS, constraints=COUPLER, forces="<Thelen2003Muscle name='m'/><Thelen2003Muscle name='n'/>"):
    return (
        "<?xml version='1.0' encoding='UTF-8' ?><OpenSimDocument Version='40000'><Model name='small'><gravity>0.2 -9.80665 0"
        f"</gravity><length_units>meters</length_units><BodySet name='bodyset'><objects>{''.join(bodies)}</objects></BodySet>"
        f"<JointSet name='jointset'><objects>{''.join(joints)}</objects></JointSet><ConstraintSet><objects>"
        f"{constraints}</objects></ConstraintSet><ForceSet name='forceset'><objects>{forces}</objects></ForceSet></Model>"
        "</OpenSimDocument>"
    )
