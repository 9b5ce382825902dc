//! A device as the operations see it: typed buffers, launches of the kernels beside the CPU bodies, matrix products.
//!
//! Two things stand behind it, as [`Backend`]: a CUDA card (`cuda.rs`, feature `cuda`), and in the tests the kernels' own
//! source run on a CPU. So all that is written over [`Device`] is tested where there is no card. Work is queued in one
//! stream: what is launched later sees what was launched before, and only a download waits.

pub mod collective;
pub mod columns;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)] // the driver's interface
pub mod cuda;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)] // NCCL's interface
pub mod nccl;
pub mod products;

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use anyhow::{Result, bail};
use bytemuck::Pod;

use crate::parallel::lock;
use collective::{Collectives, Together};
pub use products::{Operand, Product};

/// What a device has to be able to do. Addresses are the device's own.
#[allow(unsafe_code)] // addresses cannot be checked
pub trait Backend: Send + Sync {
    /// Memory of `bytes` bytes, or `None` where there is not enough.
    fn alloc(&self, bytes: usize) -> Result<Option<u64>>;

    /// Gives memory back once the work queued so far is done.
    ///
    /// # Safety
    /// `address` is from [`Backend::alloc`] and is not used again.
    unsafe fn free(&self, address: u64, bytes: usize);

    /// Queues a copy to the device; `bytes` may be dropped at once.
    ///
    /// # Safety
    /// The memory at `to` is allocated and long enough.
    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()>;

    /// Copies from the device once the work queued so far is done.
    ///
    /// # Safety
    /// The memory at `from` is allocated and long enough.
    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

    /// Queues zeroing.
    ///
    /// # Safety
    /// The memory at `address` is allocated and long enough.
    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()>;

    /// Queues a copy within the device; the two do not overlap.
    ///
    /// # Safety
    /// The memory at both addresses is allocated and long enough.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// Bytes of the device's memory that are not free, whoever has them.
    fn in_use(&self) -> Result<usize>;

    /// Queues a kernel.
    ///
    /// # Safety
    /// The arguments are the kernel's, and it stays within the memory that they name.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;

    /// Queues a matrix product.
    ///
    /// # Safety
    /// The memory of the three matrices is allocated and long enough.
    unsafe fn product(&self, product: &Product) -> Result<()>;

    /// Queues `count` matrix products of the same sizes that write different memory: those of `product` but for the addresses,
    /// which the device's memory holds at `addresses`, of all left sides, all right ones and all results.
    ///
    /// # Safety
    /// The memory of the matrices and of their addresses is allocated and long enough.
    unsafe fn products(&self, product: &Product, addresses: u64, count: usize) -> Result<()>;

    /// What lets it work together with devices of other processes; `None` where they speak by way of their hosts.
    fn collectives(&self) -> Option<&dyn Collectives> {
        None
    }
}

/// What memory is for: an out-of-memory error tells how much each holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Weights in fp32 with their bf16 copy, and frozen ones in bf16.
    Weights,
    /// Moments of the optimizer.
    Optimizer,
    /// Gradients of weights.
    Gradients,
    /// What grows with the tokens of a micro-batch.
    Activations,
    /// Keys and values of completions being sampled, and what they are computed in.
    Cache,
}

const CLASSES: [(Class, &str, &str); 5] = [
    (Class::Weights, "weights", "take a smaller model"),
    (Class::Optimizer, "optimizer", "keep its moments in eight bits"),
    (Class::Gradients, "gradients", "take a smaller model"),
    (Class::Activations, "activations", "lower compute.micro_batch_tokens or set compute.recompute = true"),
    (Class::Cache, "cache", "lower rollout.capacity or rollout.max_new_tokens"),
];

/// A handle on a device. Copies are the same device.
#[derive(Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
    /// Bytes held by each class.
    held: Arc<Mutex<[usize; CLASSES.len()]>>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("held", &self.held).finish_non_exhaustive()
    }
}

#[allow(unsafe_code)] // each block says why its addresses hold
impl Device {
    /// The device behind `backend`.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, held: Arc::default() }
    }

    /// Whether this is a handle on the same device, so that work of both is done in the order in which it is asked for.
    pub fn is(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
    }

    /// Memory for `len` values, holding whatever was there.
    pub fn buffer<T: Pod>(&self, class: Class, len: usize) -> Result<Buffer<T>> {
        // Kernels read eight values at a time from the start of a row: an empty buffer still has an address.
        let bytes = (len * size_of::<T>()).max(16);
        let Some(address) = self.backend.alloc(bytes)? else { bail!("{}", self.out_of_memory(class, bytes)) };
        lock(&self.held)[class as usize] += bytes;
        Ok(Buffer { device: self.clone(), class, address, len, bytes, values: PhantomData })
    }

    /// Memory that holds zeros.
    pub fn zeros<T: Pod>(&self, class: Class, len: usize) -> Result<Buffer<T>> {
        let buffer = self.buffer(class, len)?;
        buffer.all().zero()?;
        Ok(buffer)
    }

    /// Memory that holds `values`.
    pub fn upload<T: Pod>(&self, class: Class, values: &[T]) -> Result<Buffer<T>> {
        let buffer = self.buffer(class, values.len())?;
        buffer.all().write(values)?;
        Ok(buffer)
    }

    /// Bytes that each class holds now.
    pub fn held(&self, class: Class) -> usize {
        lock(&self.held)[class as usize]
    }

    /// Whether it can [join](Self::join) devices of other processes.
    pub fn joins(&self) -> bool {
        self.backend.collectives().is_some()
    }

    /// What other ranks need to find this one, if it is the first and can join them.
    pub fn meeting(&self) -> Result<Option<Vec<u8>>> {
        self.backend.collectives().map(Collectives::meeting).transpose()
    }

    /// Works together with the devices of other ranks from here on, by what the first one's [`Device::meeting`] made.
    /// Waits for all of them.
    pub fn join(&self, meeting: &[u8], rank: usize, size: usize) -> Result<Together> {
        let Some(collectives) = self.backend.collectives() else { bail!("this device cannot join others") };
        Ok(Together::new(self, collectives.join(meeting, rank, size)?))
    }

    /// Bytes of the device's memory that are not free: beside what classes hold, what libraries and the pool took.
    pub fn in_use(&self) -> Result<usize> {
        self.backend.in_use()
    }

    /// Bytes that all classes hold now.
    pub fn held_in_all(&self) -> usize {
        lock(&self.held).iter().sum()
    }

    fn out_of_memory(&self, class: Class, bytes: usize) -> String {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        let held: Vec<String> =
            CLASSES.iter().map(|(class, name, _)| format!("{name} {} MiB", mib(self.held(*class)))).collect();
        let (_, name, advice) = CLASSES[class as usize];
        format!(
            "out of device memory: {name} asked for {} MiB more; held are {}: {advice}",
            mib(bytes),
            held.join(", ")
        )
    }

    /// Queues a kernel.
    ///
    /// # Safety
    /// As [`Backend::launch`].
    pub(crate) unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe { self.backend.launch(launch) }
    }

    /// Queues a matrix product.
    ///
    /// # Safety
    /// As [`Backend::product`].
    pub(crate) unsafe fn product(&self, product: &Product) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.backend.product(product) }
    }

    /// Queues several of them.
    ///
    /// # Safety
    /// As [`Backend::products`].
    pub(crate) unsafe fn products(&self, product: &Product, addresses: View<u64>, count: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.backend.products(product, addresses.address(), count) }
    }
}

/// Memory on a device; given back when dropped.
#[derive(Debug)]
pub struct Buffer<T> {
    device: Device,
    class: Class,
    address: u64,
    len: usize,
    bytes: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// All of it.
    pub fn all(&self) -> View<'_, T> {
        View { buffer: self, start: 0, len: self.len }
    }

    /// The part at `range`.
    pub fn part(&self, range: Range<usize>) -> View<'_, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} is not within {} values", self.len);
        View { buffer: self, start: range.start, len: range.len() }
    }

    /// The first `len` values, in more memory where there is not enough: what it held is then lost.
    pub fn sized(&mut self, len: usize) -> Result<View<'_, T>> {
        if len > self.len {
            // The old memory goes first: the two need not fit side by side.
            *self = self.device.buffer(self.class, 0)?;
            *self = self.device.buffer(self.class, len)?;
        }
        Ok(self.part(0..len))
    }
}

#[allow(unsafe_code)]
impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        lock(&self.device.held)[self.class as usize] -= self.bytes;
        // SAFETY: the address is this buffer's alone, and views of it are gone.
        unsafe { self.device.backend.free(self.address, self.bytes) };
    }
}

/// A part of a buffer: what operations read and write. Like a handle, it says nothing of who else writes there; the
/// stream's order does.
#[derive(Debug)]
pub struct View<'a, T> {
    buffer: &'a Buffer<T>,
    start: usize,
    len: usize,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

#[allow(unsafe_code)] // a view lies within its buffer, and the lengths are checked
impl<T: Pod> View<'_, T> {
    /// Values in it.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The part of it at `range`.
    pub fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} is not within {} values", self.len);
        Self { buffer: self.buffer, start: self.start + range.start, len: range.len() }
    }

    /// The device it is on.
    pub fn device(&self) -> &Device {
        &self.buffer.device
    }

    pub(crate) fn address(self) -> u64 {
        self.buffer.address + (self.start * size_of::<T>()) as u64
    }

    /// Writes `values`, as many as it holds.
    pub fn write(self, values: &[T]) -> Result<()> {
        assert_eq!(values.len(), self.len, "an upload fills its view");
        // SAFETY: within the buffer.
        unsafe { self.device().backend.upload(self.address(), bytemuck::cast_slice(values)) }
    }

    /// Its values, once all that was queued before is done.
    pub fn read(self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len];
        // SAFETY: within the buffer.
        unsafe { self.device().backend.download(self.address(), bytemuck::cast_slice_mut(&mut values))? };
        Ok(values)
    }

    /// Fills it with zeros.
    pub fn zero(self) -> Result<()> {
        // SAFETY: within the buffer.
        unsafe { self.device().backend.zero(self.address(), self.len * size_of::<T>()) }
    }

    /// Takes the values of `from`, as many, of another buffer.
    pub fn copy(self, from: View<T>) -> Result<()> {
        assert_eq!(from.len, self.len, "a copy fills its view");
        // SAFETY: within the buffers, which differ.
        unsafe { self.device().backend.copy(from.address(), self.address(), self.len * size_of::<T>()) }
    }
}

/// A kernel with its arguments, by name.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks along three axes.
    pub grid: [u32; 3],
    /// Threads a block.
    pub threads: u32,
    /// Bytes of shared memory beside what the kernel declares.
    pub shared: u32,
    words: Vec<u64>,
    /// Where in `words` each argument begins.
    starts: Vec<usize>,
}

impl Launch {
    pub(crate) fn new(kernel: &'static str, grid: [usize; 3], threads: u32) -> Self {
        let [x, y, z] = grid;
        assert!(x < 1 << 31 && y < 1 << 16 && z < 1 << 16, "{kernel}: a card launches no grid of {grid:?} blocks");
        let grid = grid.map(|n| n as u32);
        Self { kernel, grid, threads, shared: 0, words: Vec::new(), starts: Vec::new() }
    }

    /// With `shared` bytes of shared memory beside what the kernel declares.
    pub(crate) fn with_shared(self, shared: u32) -> Self {
        Self { shared, ..self }
    }

    /// Adds the next argument.
    pub(crate) fn arg(mut self, argument: impl Argument) -> Self {
        self.starts.push(self.words.len());
        self.words.extend(argument.words());
        self
    }

    /// The addresses of the arguments' values, in order: what a driver's launch takes. Good while `self` is.
    pub fn pointers(&self) -> Vec<*mut c_void> {
        self.starts.iter().map(|&start| (&raw const self.words[start]).cast_mut().cast()).collect()
    }
}

/// What a kernel can be given, as its bytes in words of eight.
pub(crate) trait Argument {
    fn words(self) -> Vec<u64>;
}

impl Argument for u32 {
    fn words(self) -> Vec<u64> {
        vec![u64::from(self)]
    }
}

impl Argument for u64 {
    fn words(self) -> Vec<u64> {
        vec![self]
    }
}

impl Argument for f32 {
    fn words(self) -> Vec<u64> {
        vec![u64::from(self.to_bits())]
    }
}

impl<T: Pod> Argument for View<'_, T> {
    fn words(self) -> Vec<u64> {
        vec![self.address()]
    }
}

/// No buffer, where a kernel takes one or none.
pub(crate) struct Null;

impl Argument for Null {
    fn words(self) -> Vec<u64> {
        vec![0]
    }
}

/// A structure of an even number of 32-bit fields.
impl<const N: usize> Argument for [u32; N] {
    fn words(self) -> Vec<u64> {
        self.chunks_exact(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32).collect()
    }
}
