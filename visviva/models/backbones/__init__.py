"""Video backbones: one adapter per diffusers family, all with the interface of `visviva.models.backbones.wan.WanBackbone`."""
