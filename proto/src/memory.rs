//! What the allocator keeps of the memory that messages leave.
//!
//! Messages of a MiB come and go by the thousand, and glibc gives memory back to the system as soon as 2 MiB of it lie
//! together: every message then has its pages made and zeroed again. Adding 1 GiB costs a seventh less with [`keep`]
//! (decision 7). It keeps it for each of its arenas, so that there is one.

/// Bytes that lie together at its end and are kept for what comes next: a stripe's chunks, and those on their way.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 32 << 20;

/// Arenas: what is free in one is of no use to who asks another. glibc makes eight a processor as threads meet: a start
/// over a million chunks then left 140 to 255 MiB on two processors, with two of them 137 to 236, by which thread met
/// which; with one 141 to 144. Adding 1 GiB or 100,000 files takes as long and a sixth less memory (decision 7).
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 1;

/// What is longer does not come out of an arena, and goes back at once: twice the longest message.
#[cfg(target_env = "gnu")]
const LONG: i32 = 4 << 20;

/// Has the allocator keep what it was given back, up to a bound, instead of asking for it again and again. To be called
/// before there are other threads; does nothing when there are any, or where the allocator is not glibc's.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the only way to tell the allocator")]
pub fn keep() {
    let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if is_alone {
        let options =
            [(libc::M_TRIM_THRESHOLD, KEPT), (libc::M_MMAP_THRESHOLD, LONG), (libc::M_ARENA_MAX, ARENAS)];
        for (option, number) in options {
            // SAFETY: takes two numbers and no memory of ours. It must not run beside other calls of the allocator;
            // this is the process's only thread.
            unsafe { libc::mallopt(option, number) };
        }
    }
}

/// Does nothing: the allocator is another.
#[cfg(not(target_env = "gnu"))]
pub fn keep() {}
