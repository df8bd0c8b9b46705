//! Logarithms on a device: the parameters of db.cu, and a pass that replaces stored values.

use wavemill_options::{DbRef, LogArgs};

use super::WHISPER_DB;
use crate::device::{Address, Device, Launch, RowTable, blocks, plain};
use crate::error::KernelError;

const THREADS: u32 = 256;
/// Number of values per thread, if there are enough values.
const VALUES_PER_THREAD: usize = 8;

plain! {
    /// `Logarithm` in db.cu: parameters of a logarithm.
    struct LogParams {
        kind: i32,
        is_squared: i32,
        is_max_reference: i32,
        amin: f32,
        reference: f32,
        top_db: f32,
    }
}

plain! {
    /// `LogarithmInPlace` in db.cu: parameters of the kernel that replaces values by their logarithms.
    struct LogInPlace {
        values: Address,
        rows: Address,
        ranges: Address,
        log: LogParams,
        n_bands: i32,
        unused: i32,
    }
}

impl LogParams {
    /// No logarithm: values are left unchanged.
    pub(crate) const LINEAR: Self = Self {
        kind: 0,
        is_squared: 0,
        is_max_reference: 0,
        amin: 0.0,
        reference: 0.0,
        top_db: 0.0,
    };

    /// Creates parameters. `power` is the exponent of the spectrum: the decibels of magnitudes are those of their
    /// squares.
    pub(crate) fn new(args: LogArgs, power: f64) -> Self {
        let (kind, db) = match args {
            LogArgs::Linear => return Self::LINEAR,
            LogArgs::Ln { floor } => {
                return Self {
                    kind: 1,
                    amin: floor as f32,
                    ..Self::LINEAR
                };
            }
            LogArgs::Db(db) => (2, db),
            LogArgs::Whisper => (3, WHISPER_DB),
        };

        let (is_max_reference, reference) = match db.reference {
            DbRef::Max => (1, 0.0),
            DbRef::Power(reference) => (0, reference as f32),
        };
        Self {
            kind,
            is_squared: i32::from(power == 1.0),
            is_max_reference,
            amin: db.amin as f32,
            reference,
            // Without `top_db`, the distance from the largest value is infinite, so there is no lower limit.
            top_db: db.top_db.map_or(f32::INFINITY, |top_db| top_db as f32),
        }
    }

    /// Reports whether the logarithm leaves values unchanged.
    pub(crate) fn is_linear(&self) -> bool {
        self.kind == Self::LINEAR.kind
    }

    /// Replaces `values` of `n_bands` bands by their logarithms. `ranges` has one `Range` per row, over all its
    /// computed frames before the logarithm.
    pub(crate) fn run<D: Device>(
        self,
        device: &D,
        rows: &RowTable,
        n_bands: usize,
        values: Address,
        ranges: Address,
    ) -> Result<(), KernelError> {
        if self.is_linear() {
            return Ok(());
        }

        let values_max = n_bands * rows.n_frames_max;
        let blocks_a_row = blocks(values_max, THREADS as usize * VALUES_PER_THREAD);
        let launch = Launch {
            grid: [rows.n_rows as u32, blocks_a_row],
            threads: THREADS,
            shared_bytes: 0,
        };
        let params = LogInPlace {
            values,
            rows: rows.address,
            ranges,
            log: self,
            n_bands: n_bands as i32,
            unused: 0,
        };
        device.launch("logarithm_in_place", launch, &params)
    }
}

#[cfg(test)]
mod tests {
    use wavemill_options::DbArgs;
    use wavemill_signal::{Lanes, Level};

    use super::*;
    use crate::db::LogPlan;
    use crate::device::testing::{RAGGED, Rows, fetched_f32, noise, on_devices, range_keys, sent};

    const N_BANDS: usize = 5;

    fn kinds() -> Vec<(LogArgs, f64)> {
        fn db(reference: DbRef, top_db: Option<f64>) -> LogArgs {
            LogArgs::Db(DbArgs {
                reference,
                top_db,
                ..DbArgs::default()
            })
        }

        vec![
            (LogArgs::Linear, 2.0),
            (LogArgs::Ln { floor: 1.2e-7 }, 2.0),
            (db(DbRef::Max, Some(80.0)), 2.0),
            (db(DbRef::Max, Some(20.0)), 1.0),
            (db(DbRef::Power(1.0), None), 2.0),
            (db(DbRef::Power(0.3), Some(80.0)), 1.0),
            (LogArgs::Whisper, 2.0),
        ]
    }

    fn bits_are_the_cpus<D: Device>(device: &D) {
        let lanes = Lanes::new(Level::Scalar).unwrap();
        let rows = Rows::new(device, &RAGGED);

        // Test values from 1e-14 to 1, and some zeros.
        let mut values: Vec<f32> = noise(N_BANDS * rows.n_frames())
            .iter()
            .map(|x| x.abs().powi(14))
            .collect();
        values[100..200].fill(0.0);

        let ranges: Vec<u32> = rows
            .split(&values, N_BANDS)
            .flat_map(|(_, row)| range_keys(row.iter().copied()))
            .collect();
        let ranges = sent(device, &ranges);

        for (args, power) in kinds() {
            let buffer = sent(device, &values);
            let (at, ranges) = (device.address(&buffer), device.address(&ranges));
            LogParams::new(args, power)
                .run(device, &rows.table, N_BANDS, at, ranges)
                .unwrap();

            let got = fetched_f32(device, &buffer, values.len());
            for ((row, got), (_, values)) in
                rows.split(&got, N_BANDS).zip(rows.split(&values, N_BANDS))
            {
                let mut want = values.to_vec();
                LogPlan::new(args, power, lanes).run(&mut want);
                assert_eq!(got, want, "{args:?} of {power}: {row:?}");
            }
        }
    }

    on_devices!(bits_are_the_cpus);
}
