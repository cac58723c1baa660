"""Settings: frozen, validated, with the reason beside each default."""
