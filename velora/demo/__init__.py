"""The bundled model: config.json, adapter.safetensors, backbone.safetensors and a card; `make` wrote them."""
