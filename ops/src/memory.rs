//! Buffers that go back to the system at once. An allocator keeps what is freed for whoever asks next, which serves small
//! buffers; where two phases of a run take turns in the memory of a machine, one must be gone before the other comes.

/// Gives a buffer the length `n`. What it holds is of no meaning, so that one which is too short is freed before a longer
/// one is taken.
pub fn sized(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if n > buffer.capacity() {
        give_back(std::mem::take(buffer));
        *buffer = vec![0f32; n];
    }
    buffer.resize(n, 0.0);
    buffer
}

/// Frees a buffer, and its pages with it.
#[allow(unsafe_code)]
pub fn give_back(mut values: Vec<f32>) {
    let page = page_size();
    let (start, len) = (values.as_mut_ptr() as usize, values.capacity() * size_of::<f32>());
    let (first, end) = (start.next_multiple_of(page), (start + len) / page * page);
    if first < end {
        // SAFETY: the pages lie in an allocation that belongs to `values` alone and is read by nobody from here on. What
        // the allocator writes to them afterwards is put on new pages. A system that refuses changes nothing.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED) };
    }
}

#[allow(unsafe_code)]
fn page_size() -> usize {
    // SAFETY: asks for a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_length_are_given_back_and_sized() {
        for len in [0, 1, 1023, 1025, 1 << 20] {
            give_back(vec![1f32; len]);
            let mut buffer = vec![1f32; 512];
            assert_eq!(sized(&mut buffer, len).len(), len);
            buffer.fill(2.0);
            assert_eq!((sized(&mut buffer, len / 2).len(), buffer.capacity()), (len / 2, len.max(512)));
        }
    }
}
