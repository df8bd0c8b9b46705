//! Deltas on a device.

use super::{WIDTH, taps};
use crate::device::{Address, Device, Launch, RowTable, blocks, plain};
use crate::error::KernelError;

const THREADS: u32 = 256;

plain! {
    /// `Delta` in delta.cu: parameters of the kernel that appends deltas.
    struct DeltaParams {
        base: Address,
        out: Address,
        rows: Address,
        first: [f64; WIDTH],
        second: [f64; WIDTH],
        n_bands: i32,
        orders: i32,
    }
}

/// Copies `[row][n_bands][frame]` from `base` to `out` and appends orders 1 ..= `orders`, so that `out` is
/// `[row][n_bands · (1 + orders)][frame]`. For rows of fewer than [`WIDTH`] frames, the appended part of `out` is left
/// unwritten.
pub(crate) fn run<D: Device>(
    device: &D,
    rows: &RowTable,
    bands: Bands,
    base: Address,
    out: Address,
) -> Result<(), KernelError> {
    let params = DeltaParams {
        base,
        out,
        rows: rows.address,
        first: taps(1),
        // If `orders` is 1, the kernel does not read the weights of the second derivative.
        second: taps(2),
        n_bands: bands.n_base as i32,
        orders: i32::from(bands.orders),
    };

    let launch = Launch {
        grid: [rows.n_rows as u32, blocks(bands.n_base, 1)],
        threads: THREADS,
        shared_bytes: 0,
    };

    device.launch("delta", launch, &params)
}

/// Number of bands, and of delta orders appended to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bands {
    /// Number of bands without deltas.
    pub(crate) n_base: usize,
    /// Number of delta orders: 0, 1 or 2.
    pub(crate) orders: u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::append;
    use crate::device::testing::{RAGGED, Rows, fetched_f32, noise, on_devices, sent};

    fn bits_are_the_cpus<D: Device>(device: &D) {
        const N_BASE: usize = 3;
        let rows = Rows::new(device, &RAGGED);
        let values = noise(N_BASE * rows.n_frames());

        for orders in 0..=2 {
            let n_bands = N_BASE * (1 + usize::from(orders));
            let base = sent(device, &values);
            let out = device.alloc(4 * n_bands * rows.n_frames()).unwrap();
            let bands = Bands {
                n_base: N_BASE,
                orders,
            };

            run(
                device,
                &rows.table,
                bands,
                device.address(&base),
                device.address(&out),
            )
            .unwrap();

            let got = fetched_f32(device, &out, n_bands * rows.n_frames());
            for ((row, got), (_, values)) in
                rows.split(&got, n_bands).zip(rows.split(&values, N_BASE))
            {
                let mut want = values.to_vec();
                match append(&mut want, row.n_frames as usize, orders) {
                    Ok(()) => assert_eq!(got, want, "{orders} orders, {row:?}"),
                    Err(_) => assert_eq!(&got[..values.len()], values, "{orders} orders, {row:?}"),
                }
            }
        }
    }

    on_devices!(bits_are_the_cpus);
}
