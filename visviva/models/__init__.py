"""Networks: probes that measure frames, video backbones, and physics guidance of their sampling."""
