//! carrack-supervisor
