//! carrack
fn main() {}
