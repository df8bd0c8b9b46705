//! The `wavemill-train` command.
fn main() {}
