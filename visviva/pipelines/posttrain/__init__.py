"""Post-training: ``accelerate launch -m visviva.pipelines.posttrain --config RECIPE`` (= ``visviva posttrain``)."""
