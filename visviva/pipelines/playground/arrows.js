// Arrows on a picture. The component's value is {picture, arrows, paths}: the picture as a data URL, an arrow as
// {x, y, angle, magnitude} (shares from the left and the lower edge; degrees, 0 right, 90 up; half the width is 1, the longest),
// a measured path as points [x, y] in shares. Dragging adds an arrow; what is drawn are the numbers that are sent.
const canvas = element.querySelector("canvas"), brush = canvas.getContext("2d"), picture = new Image();
let drag = null;

const scene = () => props.value || {picture: "", arrows: [], paths: []};
const round = (number, digits) => Number(number.toFixed(digits));

function place(event) {
  const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  return [inside((event.clientX - box.left) * scale, canvas.width), inside((event.clientY - box.top) * scale, canvas.height)];
}

function arrowOf([x0, y0], [x1, y1]) {
  const angle = (Math.atan2(y0 - y1, x1 - x0) * 180) / Math.PI;
  return {
    x: round(x0 / canvas.width, 4),
    y: round(1 - y0 / canvas.height, 4),
    angle: round(angle < 0 ? angle + 360 : angle, 2),
    magnitude: round(Math.min(1, Math.hypot(x1 - x0, y1 - y0) / (canvas.width / 2)), 4),
  };
}

function line(points, colour) {
  for (const [width, style] of [[7, "white"], [3, colour]]) {
    brush.lineWidth = width;
    brush.strokeStyle = style;
    brush.beginPath();
    points.forEach(([x, y]) => brush.lineTo(x, y));
    brush.stroke();
  }
}

function drawArrow(arrow) {
  const x = arrow.x * canvas.width, y = (1 - arrow.y) * canvas.height, angle = (-arrow.angle * Math.PI) / 180;
  const length = (arrow.magnitude * canvas.width) / 2, tip = [x + length * Math.cos(angle), y + length * Math.sin(angle)];
  const barb = (turn) => [tip[0] - 14 * Math.cos(angle + turn), tip[1] - 14 * Math.sin(angle + turn)];
  line([[x, y], tip], "#d62728");
  line([barb(0.5), tip, barb(-0.5)], "#d62728");
}

function draw() {
  brush.fillStyle = "#ddd";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  if (picture.naturalWidth) brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
  brush.lineCap = brush.lineJoin = "round";
  scene().arrows.concat(drag ? [arrowOf(drag.from, drag.to)] : []).forEach(drawArrow);
  scene().paths.forEach((path) => line(path.map(([x, y]) => [x * canvas.width, y * canvas.height]), "#1f77b4"));
}

function refresh() {
  if (picture.src === scene().picture || !scene().picture) return draw();
  picture.src = scene().picture;
}

picture.onload = () => {
  canvas.height = Math.round((canvas.width * picture.naturalHeight) / picture.naturalWidth);
  draw();
};
canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  drag = {from: place(event), to: place(event)};
};
canvas.onpointermove = (event) => {
  if (!drag) return;
  drag.to = place(event);
  draw();
};
canvas.onpointerup = () => {
  if (!drag) return;
  const {from, to} = drag;
  drag = null;
  if (Math.hypot(to[0] - from[0], to[1] - from[1]) >= 4) {
    props.value = {...scene(), arrows: [...scene().arrows, arrowOf(from, to)], paths: []};  // a mere click draws nothing
  }
  draw();
};
canvas.onpointercancel = () => {
  drag = null;
  draw();
};
watch("value", refresh);
refresh();
