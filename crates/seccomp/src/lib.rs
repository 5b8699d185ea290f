//! carrack-seccomp
