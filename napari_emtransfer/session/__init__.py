"""The application without a window: state and controllers."""
