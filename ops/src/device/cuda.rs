//! A CUDA card as a [`Backend`]: the driver and cuBLAS, both loaded at run time, so that the binary starts where neither
//! is. One stream; memory comes from the stream's pool, which keeps what is given back.
//!
//! Products are cuBLAS's: bf16 with fp32 sums is what it is best at, and shapes here need no epilogue of cuBLASLt's.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cudarc::cublas::sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
use cudarc::cublas::sys::cudaDataType_t::{self, CUDA_R_16BF, CUDA_R_32F};
use cudarc::cublas::{CudaBlas, result as blas, sys as blas_sys};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::collective::Collectives;
use super::nccl::{self, Nccl};
use super::{Backend, Device, Launch, Operand, Product};
use crate::parallel::lock;

/// The kernels' machine code, a file each.
const MODULES: &[&[u8]] = &include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
/// Shared memory that a block gets without asking.
const SHARED_DEFAULT: u32 = 48 << 10;

/// What a card is.
#[derive(Debug, Clone)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (i32, i32),
    /// Bytes of memory not in use.
    pub free: usize,
    /// Bytes of memory.
    pub total: usize,
}

/// Cards of this machine that the driver shows.
pub fn count() -> Result<usize> {
    ensure!(driver_present(), "there is no NVIDIA driver (libcuda.so.1) on this machine");
    Ok(usize::try_from(CudaContext::device_count()?)?)
}

/// Whether the driver's library is on this machine.
pub fn driver_present() -> bool {
    // SAFETY: loading the driver's library runs its start-up code, as any CUDA program does.
    unsafe { sys::is_culib_present() }
}

/// Whether cuBLAS is on this machine.
pub fn cublas_present() -> bool {
    // SAFETY: as above.
    unsafe { blas_sys::is_culib_present() }
}

/// The driver's CUDA version, such as (13, 0).
pub fn driver_version() -> Result<(i32, i32)> {
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    Ok((version / 1000, version % 1000 / 10))
}

/// The driver's state on the card `ordinal`.
fn context(ordinal: usize) -> Result<Arc<CudaContext>> {
    // Asked first: cudarc panics at the first call into a library that is not there.
    ensure!(driver_present(), "there is no NVIDIA driver (libcuda.so.1) on this machine");
    CudaContext::new(ordinal).with_context(|| format!("CUDA card {ordinal} cannot be used"))
}

/// The card `ordinal`, as it is now.
pub fn card(ordinal: usize) -> Result<Card> {
    let context = context(ordinal)?;
    let (free, total) = context.mem_get_info()?;
    Ok(Card { name: context.name()?, capability: context.compute_capability()?, free, total })
}

/// The card `ordinal`, ready to compute; an error says what is missing and how to get it.
pub fn open(ordinal: usize) -> Result<Device> {
    let context = context(ordinal)?;
    ensure!(
        cublas_present(),
        "libcublas.so is not found: install the CUDA toolkit or the Python package nvidia-cublas, and set \
         LD_LIBRARY_PATH to its folder"
    );
    let (major, minor) = context.compute_capability()?;
    ensure!(major >= 8, "the card has compute capability {major}.{minor}, and kernels need 8.0 or higher (Ampere)");
    let stream = context.new_stream()?;
    let pool = keep_memory(ordinal)?;
    let blas = CudaBlas::new(stream.clone()).map_err(|e| anyhow!("cuBLAS does not start: {e:?}"))?;
    // Sums that are split over blocks stay in fp32 too, which is not the default.
    let wide_sums = blas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
    // SAFETY: the handle was made above.
    unsafe { blas_sys::cublasSetMathMode(*blas.handle(), wide_sums) }
        .result()
        .map_err(|e| anyhow!("cuBLAS does not keep its sums in fp32: {e:?}"))?;
    let modules = MODULES.iter().map(|bytes| load(bytes)).collect::<Result<Vec<_>>>()?;
    let (nccl, functions) = (OnceLock::new(), Mutex::default());
    Ok(Device::new(Arc::new(Cuda { context, stream, pool, blas, nccl, modules, functions })))
}

/// Lets the card's pool keep memory that was given back: asking the system anew costs a wait for all work.
fn keep_memory(ordinal: usize) -> Result<Address> {
    let (device, mut pool, mut all) = (result::device::get(ordinal as c_int)?, std::ptr::null_mut(), u64::MAX);
    let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: both write or read the one value they are given.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, device).result()?;
        sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut all).cast()).result()?;
    }
    Ok(Address(pool as usize))
}

fn load(bytes: &[u8]) -> Result<Address> {
    // The driver reads the image in words.
    let words: Vec<u64> = bytes.chunks(8).map(|c| c.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b))).collect();
    // SAFETY: an image that nvcc made, and that the driver copies.
    let module = unsafe { result::module::load_data(words.as_ptr().cast()) }
        .context("the kernels do not load: the driver is too old for the compiler they were built with")?;
    Ok(Address(module as usize))
}

/// A driver's handle, good on every thread.
#[derive(Debug, Clone, Copy)]
struct Address(usize);

struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Where memory comes from.
    pool: Address,
    blas: CudaBlas,
    /// Where NCCL is on this machine; not looked for before several ranks ask.
    nccl: OnceLock<Option<Nccl>>,
    modules: Vec<Address>,
    functions: Mutex<HashMap<&'static str, Address>>,
}

impl Cuda {
    /// The stream, with the card made this thread's own.
    fn stream(&self) -> Result<sys::CUstream> {
        self.context.bind_to_thread()?;
        Ok(self.stream.cu_stream())
    }

    fn try_alloc(&self, bytes: usize) -> Result<Option<u64>> {
        // SAFETY: nothing is read from it before it is written.
        match unsafe { result::malloc_async(self.stream()?, bytes) } {
            Ok(address) => Ok(Some(address)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// A kernel by name, allowed the shared memory it asks for.
    fn function(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let mut functions = lock(&self.functions);
        if let Some(known) = functions.get(launch.kernel) {
            return Ok(known.0 as sys::CUfunction);
        }
        let find = |module: &Address| {
            let name = CString::new(launch.kernel).ok()?;
            // SAFETY: a loaded module.
            unsafe { result::module::get_function(module.0 as sys::CUmodule, name) }.ok()
        };
        let Some(function) = self.modules.iter().find_map(find) else { bail!("no kernel is named {}", launch.kernel) };
        if launch.shared > SHARED_DEFAULT {
            let limit = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a function of a loaded module. A kernel always asks for the same.
            unsafe { result::function::set_function_attribute(function, limit, launch.shared as i32) }
                .with_context(|| format!("{} asks for {} bytes of shared memory", launch.kernel, launch.shared))?;
        }
        functions.insert(launch.kernel, Address(function as usize));
        Ok(function)
    }
}

fn operation(operand: Operand) -> blas_sys::cublasOperation_t {
    if operand.transposed { blas_sys::cublasOperation_t::CUBLAS_OP_T } else { blas_sys::cublasOperation_t::CUBLAS_OP_N }
}

/// Of the sums, and of what the result holds.
fn factors(product: &Product) -> (f32, f32) {
    (product.scale, if product.add { 1.0 } else { 0.0 })
}

fn out_type(product: &Product) -> cudaDataType_t {
    if product.wide { CUDA_R_32F } else { CUDA_R_16BF }
}

impl Backend for Cuda {
    fn alloc(&self, bytes: usize) -> Result<Option<u64>> {
        if let Some(address) = self.try_alloc(bytes)? {
            return Ok(Some(address));
        }
        // What the pool kept may lie in pieces that are too small: the card gets it back, and is asked once more.
        self.stream.synchronize()?;
        // SAFETY: the card's own pool; what is in use stays.
        unsafe { sys::cuMemPoolTrimTo(self.pool.0 as sys::CUmemoryPool, 0) }.result()?;
        self.try_alloc(bytes)
    }

    unsafe fn free(&self, address: u64, _bytes: usize) {
        // An error here is one of the work before, and shows at the next call that can report it.
        if let Ok(stream) = self.stream() {
            // SAFETY: the caller's.
            let _ = unsafe { result::free_async(address, stream) };
        }
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        // From pageable memory the driver has read `bytes` when it returns.
        // SAFETY: the caller's.
        Ok(unsafe { result::memcpy_htod_async(to, bytes, self.stream()?) }?)
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's, and `bytes` outlives the copy.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream()?) }?;
        Ok(self.stream.synchronize()?)
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        Ok(unsafe { result::memset_d8_async(address, 0, bytes, self.stream()?) }?)
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        Ok(unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream()?) }?)
    }

    fn in_use(&self) -> Result<usize> {
        let (free, total) = self.context.mem_get_info()?;
        Ok(total - free)
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let stream = self.stream()?;
        let function = self.function(launch)?;
        let ([x, y, z], mut arguments) = (launch.grid, launch.pointers());
        let (threads, shared) = ((launch.threads, 1, 1), launch.shared);
        // SAFETY: the caller's; the arguments are read before this returns.
        unsafe { result::launch_kernel(function, (x, y, z), threads, shared, stream, &mut arguments) }
            .with_context(|| format!("launch of {}", launch.kernel))
    }

    unsafe fn product(&self, p: &Product) -> Result<()> {
        self.stream()?;
        let (scale, start) = factors(p);
        // cuBLAS stores columns end to end: it is asked for the transpose, `rightᵀ leftᵀ`.
        // SAFETY: the caller's.
        unsafe {
            blas::gemm_ex(
                *self.blas.handle(),
                operation(p.right),
                operation(p.left),
                p.n as c_int,
                p.m as c_int,
                p.k as c_int,
                (&raw const scale).cast(),
                p.right.address as *const c_void,
                CUDA_R_16BF,
                p.right.row as c_int,
                p.left.address as *const c_void,
                CUDA_R_16BF,
                p.left.row as c_int,
                (&raw const start).cast(),
                p.out as *mut c_void,
                out_type(p),
                p.out_row as c_int,
                CUBLAS_COMPUTE_32F,
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|e| anyhow!("cuBLAS: product of {} x {} x {}: {e:?}", p.m, p.n, p.k))
    }

    unsafe fn products(&self, p: &Product, addresses: u64, count: usize) -> Result<()> {
        self.stream()?;
        let (scale, start) = factors(p);
        let part = |index: usize| addresses + (index * count * size_of::<u64>()) as u64;
        // As above: the transpose is asked for.
        // SAFETY: the caller's.
        unsafe {
            blas_sys::cublasGemmBatchedEx(
                *self.blas.handle(),
                operation(p.right),
                operation(p.left),
                p.n as c_int,
                p.m as c_int,
                p.k as c_int,
                (&raw const scale).cast(),
                part(1) as *const *const c_void,
                CUDA_R_16BF,
                p.right.row as c_int,
                part(0) as *const *const c_void,
                CUDA_R_16BF,
                p.left.row as c_int,
                (&raw const start).cast(),
                part(2) as *const *mut c_void,
                out_type(p),
                p.out_row as c_int,
                count as c_int,
                CUBLAS_COMPUTE_32F,
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .result()
        .map_err(|e| anyhow!("cuBLAS: {count} products of {} x {} x {}: {e:?}", p.m, p.n, p.k))
    }

    fn collectives(&self) -> Option<&dyn Collectives> {
        let found = || nccl::present().then(|| Nccl { context: self.context.clone(), stream: self.stream.clone() });
        self.nccl.get_or_init(found).as_ref().map(|nccl| nccl as &dyn Collectives)
    }
}
