//! What the allocator keeps of the memory that messages leave.
//!
//! Messages of a MiB come and go by the thousand, and glibc gives memory back to the system as soon as 2 MiB of it lie
//! together: every message then has its pages made and zeroed again. Adding 1 GiB costs a seventh less with [`keep`]
//! (decision 7).

/// Bytes that an arena keeps for what comes next, and up to which memory comes out of an arena at all: the most that
/// glibc takes for the second (`HEAP_MAX_SIZE / 2`).
#[cfg(target_env = "gnu")]
const KEPT: i32 = 32 << 20;

/// Has the allocator keep what it was given back, up to a bound, instead of asking for it again and again. To be called
/// before there are other threads; does nothing when there are any, or where the allocator is not glibc's.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the only way to tell the allocator")]
pub fn keep() {
    let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if is_alone {
        for option in [libc::M_TRIM_THRESHOLD, libc::M_MMAP_THRESHOLD] {
            // SAFETY: takes two numbers and no memory of ours. It must not run beside other calls of the allocator; this
            // is the process's only thread.
            unsafe { libc::mallopt(option, KEPT) };
        }
    }
}

/// Does nothing: the allocator is another.
#[cfg(not(target_env = "gnu"))]
pub fn keep() {}
