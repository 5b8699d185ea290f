//! carrack-task
