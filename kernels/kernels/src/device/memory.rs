//! Reusable memory that grows to the largest batch so far. It never shrinks; plans replace it after a long clip.

use super::{Address, Device, Plain, bytes_of};
use crate::error::KernelError;

/// Device memory that grows and never shrinks. Growing discards its content.
pub(crate) struct DeviceMemory<D: Device> {
    buffer: Option<D::Buffer>,
    bytes: usize,
}

impl<D: Device> Default for DeviceMemory<D> {
    fn default() -> Self {
        Self {
            buffer: None,
            bytes: 0,
        }
    }
}

impl<D: Device> DeviceMemory<D> {
    /// Returns device memory of at least `bytes` bytes, with undefined content.
    pub(crate) fn ensure(
        &mut self,
        device: &D,
        bytes: usize,
    ) -> Result<&mut D::Buffer, KernelError> {
        let fits = self.buffer.is_some() && bytes <= self.bytes;
        if !fits {
            // Free the old memory first, because both may not fit. No queued work may still use it.
            device.synchronize()?;
            self.buffer = None;
            self.bytes = roomy(self.bytes, bytes);
        }

        // There is no device memory before the first use, nor after a failed allocation.
        match &mut self.buffer {
            Some(buffer) => Ok(buffer),
            none => Ok(none.insert(device.alloc(self.bytes)?)),
        }
    }

    /// Like [`Self::ensure`], but returns the memory's device address.
    pub(crate) fn address(&mut self, device: &D, bytes: usize) -> Result<Address, KernelError> {
        self.ensure(device, bytes)
            .map(|buffer| device.address(buffer))
    }

    /// Returns the buffer of the last call of [`Self::ensure`].
    pub(crate) fn get(&mut self) -> Option<&mut D::Buffer> {
        self.buffer.as_mut()
    }
}

/// Returns the size to allocate if the `had` bytes so far are fewer than `needed`: 25 % more than needed, except at
/// first.
const fn roomy(had: usize, needed: usize) -> usize {
    if had == 0 {
        needed
    } else {
        needed + needed / 4
    }
}

/// Host memory for copies that grows and never shrinks.
pub(crate) struct HostMemory<D: Device> {
    host: Option<D::Host>,
    bytes: usize,
}

impl<D: Device> Default for HostMemory<D> {
    fn default() -> Self {
        Self {
            host: None,
            bytes: 0,
        }
    }
}

impl<D: Device> HostMemory<D> {
    /// Returns host memory of at least `bytes` bytes.
    pub(crate) fn ensure(&mut self, device: &D, bytes: usize) -> Result<&mut D::Host, KernelError> {
        if bytes > self.bytes {
            // A copy that uses the old memory may still be running.
            device.synchronize()?;
            self.host = None;
        }
        match &mut self.host {
            Some(host) => Ok(host),
            none => {
                let size = roomy(self.bytes, bytes);
                let host = device.alloc_host(size)?;
                // Only now: after a refusal, a smaller batch asks for less.
                self.bytes = size;
                Ok(none.insert(host))
            }
        }
    }

    /// Returns the bytes of the host memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.host.as_ref().map(AsRef::as_ref).unwrap_or_default()
    }
}

/// A table that is written on the host and read on the device; sent once or repeatedly.
pub(crate) struct Table<D: Device> {
    host: HostMemory<D>,
    device: DeviceMemory<D>,
}

impl<D: Device> Default for Table<D> {
    fn default() -> Self {
        Self {
            host: HostMemory::default(),
            device: DeviceMemory::default(),
        }
    }
}

impl<D: Device> Table<D> {
    /// Creates a table that never changes.
    pub(crate) fn new<T: Plain>(device: &D, values: &[T]) -> Result<Self, KernelError> {
        let mut table = Self::default();
        table.send(device, values)?;
        Ok(table)
    }

    /// Returns host memory of at least `bytes`, to be filled before [`Table::upload`].
    pub(crate) fn host(&mut self, device: &D, bytes: usize) -> Result<&mut [u8], KernelError> {
        Ok(&mut self.host.ensure(device, bytes)?.as_mut()[..bytes])
    }

    /// Queues the copy of the first `bytes` bytes of the table to the device.
    pub(crate) fn upload(&mut self, device: &D, bytes: usize) -> Result<Address, KernelError> {
        let host = self.host.ensure(device, bytes)?;
        let buffer = self.device.ensure(device, bytes)?;
        device.upload(host, bytes, buffer)?;
        Ok(device.address(buffer))
    }

    /// Replaces the content of the table by `values` and queues the copy to the device.
    pub(crate) fn send<T: Plain>(
        &mut self,
        device: &D,
        values: &[T],
    ) -> Result<Address, KernelError> {
        let bytes = bytes_of(values);
        self.host(device, bytes.len())?.copy_from_slice(bytes);
        self.upload(device, bytes.len())
    }

    /// Returns the table's device address.
    pub(crate) fn address(&mut self, device: &D) -> Result<Address, KernelError> {
        self.device.address(device, 0)
    }
}

/// One word per row that kernels increase from 0 with atomic operations, with a copy on the host.
pub(crate) struct RowWords<D: Device> {
    device: DeviceMemory<D>,
    host: HostMemory<D>,
    n_rows: usize,
}

impl<D: Device> Default for RowWords<D> {
    fn default() -> Self {
        Self {
            device: DeviceMemory::default(),
            host: HostMemory::default(),
            n_rows: 0,
        }
    }
}

impl<D: Device> RowWords<D> {
    /// Allocates `n_rows` zeros on the device.
    pub(crate) fn start(&mut self, device: &D, n_rows: usize) -> Result<Address, KernelError> {
        self.n_rows = n_rows;
        let bytes = n_rows * size_of::<u32>();
        let buffer = self.device.ensure(device, bytes)?;
        device.zero(buffer, bytes)?;
        Ok(device.address(buffer))
    }

    /// Queues the copy of all words from the device to the host.
    pub(crate) fn fetch(&mut self, device: &D) -> Result<(), KernelError> {
        let bytes = self.n_rows * size_of::<u32>();
        let host = self.host.ensure(device, bytes)?;
        let buffer = self.device.ensure(device, bytes)?;
        device.download(buffer, bytes, host)
    }

    /// Returns the words copied to the host, one per row. Call after the device has been synchronized.
    pub(crate) fn words(&self) -> impl Iterator<Item = u32> {
        let words = self
            .host
            .bytes()
            .chunks_exact(size_of::<u32>())
            .take(self.n_rows);
        words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    }
}
