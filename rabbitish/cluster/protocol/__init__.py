"""How a log is replicated: roles, frames and rules as plain state, without trio, sockets or a clock."""
