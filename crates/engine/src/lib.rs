//! carrack-engine
