"""The door to NVFlare: controllers and components that call the pure classes of ``fl_server``."""
