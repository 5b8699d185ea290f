//! carrack-container
