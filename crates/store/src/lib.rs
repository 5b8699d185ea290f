//! carrack-store
