"""Who may do what: pure functions (request, context) -> verdict, without I/O or clock."""
