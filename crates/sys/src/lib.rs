//! carrack-sys
