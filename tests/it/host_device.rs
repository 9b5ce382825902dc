//! The device that stands in for a CUDA card: the kernels' own source, compiled by the machine's C++ compiler over
//! `tests/stand_in/host_cuda.h`, with new memory poisoned and matrix products in plain loops. Some of them, as ranks have,
//! can work together as cards do by NCCL. What needs it skips with a message where there is no C++ compiler.
#![allow(unsafe_code)] // calls into a library, and memory behind plain addresses

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex, OnceLock};

use anyhow::{Context, Result, bail, ensure};
use half::bf16;
use libloading::Library;
use reckon::ops::device::collective::{Collective, Collectives};
use reckon::ops::device::{Backend, Device, Launch, Operand, Product};

type HostLaunch = unsafe extern "C" fn(*const c_char, *const u32, u32, usize, u32, *mut *mut c_void) -> *const c_char;

struct HostDevice {
    library: &'static Library,
    /// In which order threads run between two barriers; see `host_cuda.h`.
    order: u32,
    memory: Mutex<BTreeMap<u64, Vec<u64>>>,
    /// Bytes that may be held at a time.
    limit: usize,
    /// What it works together with others by.
    table: Option<Table>,
}

/// Where devices of one process, each a rank of a thread, put down what others take: NCCL's part between them.
#[derive(Debug, Clone)]
struct Table {
    rank: usize,
    laid: Arc<Mutex<Vec<Vec<f32>>>>,
    all: Arc<Barrier>,
}

impl Table {
    /// What all ranks have in a place, once all have put it down.
    fn of_all(&self, own: &[f32]) -> Vec<Vec<f32>> {
        self.laid.lock().unwrap()[self.rank] = own.to_vec();
        self.all.wait();
        let laid = self.laid.lock().unwrap().clone();
        self.all.wait();
        laid
    }
}

impl Collectives for Table {
    fn meeting(&self) -> Result<Vec<u8>> {
        Ok(b"the table".to_vec())
    }

    fn join(&self, meeting: &[u8], rank: usize, size: usize) -> Result<Box<dyn Collective>> {
        ensure!(meeting == b"the table" && rank == self.rank, "rank {rank} came to {meeting:?}");
        ensure!(self.laid.lock().unwrap().len() == size, "{size} ranks at a table for others");
        Ok(Box::new(self.clone()))
    }
}

impl Collective for Table {
    unsafe fn sum_shares(&self, address: u64, shares: &[Range<usize>]) -> Result<()> {
        let len = shares.last().map_or(0, |share| share.end);
        // SAFETY: the caller's.
        let own = unsafe { std::slice::from_raw_parts_mut(address as *mut f32, len) };
        let laid = self.of_all(own);
        for place in shares[self.rank].clone() {
            own[place] = laid.iter().map(|values| values[place]).sum();
        }
        Ok(())
    }

    unsafe fn spread_shares(&self, address: u64, shares: &[Range<usize>]) -> Result<()> {
        let len = shares.last().map_or(0, |share| share.end);
        // SAFETY: the caller's.
        let own = unsafe { std::slice::from_raw_parts_mut(address as *mut f32, len) };
        let laid = self.of_all(own);
        for (values, share) in laid.iter().zip(shares) {
            own[share.clone()].copy_from_slice(&values[share.clone()]);
        }
        Ok(())
    }
}

/// A device for each of `size` ranks of this process, which can work together without their hosts if `joined` says so.
pub(crate) fn devices_of_ranks(size: usize, joined: bool) -> Option<Vec<Device>> {
    let (laid, all) = (Arc::new(Mutex::new(vec![Vec::new(); size])), Arc::new(Barrier::new(size)));
    let table = |rank| joined.then(|| Table { rank, laid: laid.clone(), all: all.clone() });
    (0..size).map(|rank| stand_in(0, usize::MAX, table(rank))).collect()
}

/// Orders that every kernel is tried in: forward, backward, shuffled.
pub(crate) const ORDERS: [u32; 3] = [0, 1, 7];

/// A device whose threads run in `order`, or `None`, with a message, where there is no C++ compiler.
///
/// With `RECKON_TEST_DEVICE=cuda`, the first CUDA card of this machine instead.
pub(crate) fn device(order: u32) -> Option<Device> {
    if wants_card() { Some(card()) } else { device_of(order, usize::MAX) }
}

fn wants_card() -> bool {
    std::env::var_os("RECKON_TEST_DEVICE").is_some_and(|device| device == "cuda")
}

#[cfg(feature = "cuda")]
fn card() -> Device {
    reckon::ops::device::cuda::open(0).unwrap()
}

#[cfg(not(feature = "cuda"))]
fn card() -> Device {
    panic!("RECKON_TEST_DEVICE=cuda, but these tests were built without --features cuda")
}

/// The device on this machine's processor with `limit` bytes of memory. A card is full when it is full.
pub(crate) fn device_of(order: u32, limit: usize) -> Option<Device> {
    if wants_card() { None } else { stand_in(order, limit, None) }
}

fn stand_in(order: u32, limit: usize, table: Option<Table>) -> Option<Device> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        if Command::new(&compiler).arg("--version").output().is_err() {
            eprintln!("skipped: there is no C++ compiler \"{compiler}\" to run CUDA kernels on this machine with");
            return None;
        }
        Some(compile(&compiler).unwrap())
    });
    let library = library.as_ref()?;
    Some(Device::new(Arc::new(HostDevice { library, order, memory: Mutex::default(), limit, table })))
}

/// Every `.cu` file below `folder`.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(sources(&path)?),
            false if path.extension().is_some_and(|e| e == "cu") => found.push(path),
            false => {}
        }
    }
    found.sort();
    Ok(found)
}

fn compile(compiler: &str) -> Result<Library> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let stem = folder.join(format!("kernels-{}", std::process::id()));
    let (source, library) = (stem.with_extension("cpp"), stem.with_extension("so"));
    // `scripts/barriers` puts damaged ones in their place.
    let kernels = std::env::var_os("RECKON_TEST_KERNELS").map(PathBuf::from);
    // Tests of another crate of the workspace share this file.
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.find(|folder| folder.join("tests/stand_in").exists()).context("no tests/stand_in")?;
    let files = sources(&kernels.unwrap_or_else(|| root.join("ops/src")))?;
    let text: String = files.iter().map(|file| format!("#include {file:?}\n")).collect();
    std::fs::write(&source, text)?;
    // Switching fibers by longjmp is what glibc's fortified one takes for an overrun stack.
    let flags =
        ["-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-Wall", "-Werror", "-Wno-unknown-pragmas"];
    let include = root.join("tests/stand_in");
    let done =
        Command::new(compiler).args(flags).arg("-I").arg(include).arg(&source).arg("-o").arg(&library).output()?;
    ensure!(done.status.success(), "{compiler}: {}", String::from_utf8_lossy(&done.stderr));
    // SAFETY: built above; it runs nothing when loaded but the table of kernels.
    let loaded = unsafe { Library::new(&library) }.context("the library of kernels does not load")?;
    std::fs::remove_file(&source)?;
    std::fs::remove_file(&library)?;
    Ok(loaded)
}

impl Backend for HostDevice {
    fn collectives(&self) -> Option<&dyn Collectives> {
        self.table.as_ref().map(|table| table as &dyn Collectives)
    }

    fn alloc(&self, bytes: usize) -> Result<Option<u64>> {
        if self.in_use()? + bytes > self.limit {
            return Ok(None);
        }
        let mut memory = self.memory.lock().unwrap();
        // All bits set: NaN to every kernel that reads what nothing wrote.
        let block = vec![u64::MAX; bytes.div_ceil(16) * 2];
        let address = block.as_ptr() as u64;
        memory.insert(address, block);
        Ok(Some(address))
    }

    unsafe fn free(&self, address: u64, _bytes: usize) {
        self.memory.lock().unwrap().remove(&address);
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn in_use(&self) -> Result<usize> {
        Ok(self.memory.lock().unwrap().values().map(|m| m.len() * 8).sum())
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let name = std::ffi::CString::new(launch.kernel)?;
        let mut pointers = launch.pointers();
        // SAFETY: the caller's; the signature is that of `host_cuda.h`.
        let error = unsafe {
            let run = self.library.get::<HostLaunch>(b"host_launch")?;
            let shared = launch.shared as usize;
            run(name.as_ptr(), launch.grid.as_ptr(), launch.threads, shared, self.order, pointers.as_mut_ptr())
        };
        if !error.is_null() {
            // SAFETY: a literal of the library.
            bail!("{}: {}", launch.kernel, unsafe { CStr::from_ptr(error) }.to_string_lossy());
        }
        Ok(())
    }

    unsafe fn products(&self, product: &Product, addresses: u64, count: usize) -> Result<()> {
        let address = |part: usize, index: usize| unsafe { *(addresses as *const u64).add(part * count + index) };
        (0..count).try_for_each(|index| {
            let (mut p, [left, right, out]) = (*product, [0, 1, 2].map(|part| address(part, index)));
            (p.left.address, p.right.address, p.out) = (left, right, out);
            // SAFETY: the caller's.
            unsafe { self.product(&p) }
        })
    }

    unsafe fn product(&self, p: &Product) -> Result<()> {
        let side = |o: Operand| {
            let value = move |i: usize| f32::from(unsafe { *(o.address as *const bf16).add(i) });
            move |r: usize, c: usize| if o.transposed { value(c * o.row + r) } else { value(r * o.row + c) }
        };
        let (left, right) = (side(p.left), side(p.right));
        for (r, c) in (0..p.m).flat_map(|r| (0..p.n).map(move |c| (r, c))) {
            let sum = p.scale * (0..p.k).map(|i| left(r, i) * right(i, c)).sum::<f32>();
            let at = r * p.out_row + c;
            // SAFETY: the caller's.
            unsafe {
                if p.wide {
                    let out = (p.out as *mut f32).add(at);
                    *out = sum + if p.add { *out } else { 0.0 };
                } else {
                    let out = (p.out as *mut bf16).add(at);
                    *out = bf16::from_f32(sum + if p.add { f32::from(*out) } else { 0.0 });
                }
            }
        }
        Ok(())
    }
}
