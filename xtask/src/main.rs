//! Repository checks and tools.
fn main() {}
