//! Compares scaling, order of the axes, cropping and stored types with the CPU's results.

use half::f16;
use wavemill_options::{DbArgs, DbRef, DimOrder, Dtype, LogArgs, Normalize, Packing};
use wavemill_signal::{Lanes, Level};

use super::{PackDevice, PackInput, pack_into};
use crate::db::{LogParams, LogPlan};
use crate::device::Device;
use crate::device::testing::{RAGGED, Rows, fetched, noise, on_devices, range_keys, sent};
use crate::error::KernelError;
use crate::normalize::{NormalizeDevice, Scale, normalize};

const N_BANDS: usize = 37;
const ORDERS: [DimOrder; 2] = [DimOrder::BandFrame, DimOrder::FrameBand];
const DB: LogArgs = LogArgs::Db(DbArgs {
    reference: DbRef::Max,
    amin: 1e-10,
    top_db: Some(80.0),
});

/// Mean and deviation are f64 sums in a different order: an error of 1e-16 times the root of the count, then one
/// rounding to f32.
const MEAN_VAR_MAX: f32 = 1e-6;

fn kept(row: &[f32], n_frames: usize, n_kept: usize) -> Vec<f32> {
    row.chunks_exact(n_frames.max(1))
        .flat_map(|band| band[..n_kept].to_vec())
        .collect()
}

fn ordered(values: &[f32], n_kept: usize, order: DimOrder) -> Vec<f32> {
    match order {
        DimOrder::BandFrame => values.to_vec(),
        DimOrder::FrameBand => (0..n_kept)
            .flat_map(|t| values.iter().skip(t).step_by(n_kept).copied())
            .collect(),
    }
}

/// Computes logarithm, crop, scaling and order on the CPU.
fn on_cpu(
    row: &[f32],
    frames: [usize; 2],
    log: LogArgs,
    how: Normalize,
    order: DimOrder,
) -> Vec<f32> {
    let lanes = Lanes::new(Level::Scalar).unwrap();
    let mut values = row.to_vec();
    LogPlan::new(log, 2.0, lanes).run(&mut values);

    let mut values = kept(&values, frames[0], frames[1]);
    normalize(&mut values, how, lanes);
    ordered(&values, frames[1], order)
}

fn as_f32(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

/// Packs `values`, including the logarithm, and returns the bytes of each row.
fn packed<D: Device>(
    device: &D,
    rows: &Rows<D>,
    values: &[f32],
    plan: &mut PackDevice<D>,
    (log, how): (LogArgs, Normalize),
    dtype_bytes: usize,
) -> Vec<Vec<u8>> {
    let n_bands = values.len() / rows.n_frames();

    let mut ranges_of_all = Vec::new();
    let mut ranges_of_kept = Vec::new();
    for (row, values) in rows.split(values, n_bands) {
        let [n_frames, n_kept] = [row.n_frames, row.n_kept].map(|n| n as usize);
        ranges_of_all.extend(range_keys(kept(values, n_frames, n_frames)));
        ranges_of_kept.extend(range_keys(kept(values, n_frames, n_kept)));
    }

    let buffer = sent(device, values);
    let all = sent(device, &ranges_of_all);
    let kept = sent(device, &ranges_of_kept);

    let mut spread = NormalizeDevice::new(how);
    let at = device.address(&buffer);
    let params = LogParams::new(log, 2.0);
    let scale = match how {
        Normalize::MinMax => Scale::MinMax {
            ranges: device.address(&kept),
        },
        // Moments are those of the values after the logarithm, so compute the logarithm first.
        _ => {
            params
                .run(device, &rows.table, n_bands, at, device.address(&all))
                .unwrap();
            spread.run(device, &rows.table, n_bands, at).unwrap()
        }
    };

    let log = if how == Normalize::MinMax {
        params
    } else {
        LogParams::LINEAR
    };

    let mut row_bytes = Vec::new();
    for row in &rows.entries {
        row_bytes.push(n_bands * row.n_kept as usize * dtype_bytes);
    }
    let total = row_bytes.iter().sum();
    let out = device.alloc(total).unwrap();

    let input = PackInput {
        values: at,
        kept: rows.kept,
        log,
        log_ranges: device.address(&all),
        scale,
        bytes: device.address(&out),
    };
    plan.run(device, &rows.table, &input).unwrap();

    let bytes = fetched(device, &out, total);
    let mut rest = &bytes[..];
    let mut packed = Vec::new();
    for n in row_bytes {
        packed.push(rest.split_off(..n).unwrap().to_vec());
    }
    packed
}

fn stored_bytes_are_the_cpus<D: Device>(device: &D) {
    let unit = Packing::U8 {
        low: 0.0,
        high: 1.0,
    };
    let decibels = Packing::U8 {
        low: -80.0,
        high: 0.0,
    };

    let rows = Rows::new(device, &RAGGED);
    let mut values: Vec<f32> = noise(N_BANDS * rows.n_frames())
        .iter()
        .map(|x| x.abs().powi(5))
        .collect();

    // Give one row a constant value.
    let constant = rows.entries[2];
    values[N_BANDS * constant.frame as usize..][..N_BANDS * constant.n_frames as usize].fill(0.25);

    for (log, how, packing) in [
        (LogArgs::Linear, Normalize::None, Packing::F32),
        (LogArgs::Linear, Normalize::MinMax, unit),
        (DB, Normalize::None, decibels),
        (DB, Normalize::None, Packing::F16),
        (DB, Normalize::MinMax, Packing::F16),
        (DB, Normalize::MinMax, Packing::F32),
        (DB, Normalize::MinMax, unit),
    ] {
        for order in ORDERS {
            let mut plan = PackDevice::new(N_BANDS, order, packing);
            let bytes = if packing == Packing::F16 {
                2
            } else if packing == Packing::F32 {
                4
            } else {
                1
            };

            let got = packed(device, &rows, &values, &mut plan, (log, how), bytes);
            assert!(
                plan.faults().all(|fault| fault.is_none()),
                "{log:?} {how:?} {packing:?}"
            );

            for ((row, values), got) in rows.split(&values, N_BANDS).zip(&got) {
                let frames = [row.n_frames, row.n_kept].map(|n| n as usize);
                let mut want = Vec::new();
                pack_into(&on_cpu(values, frames, log, how, order), packing, &mut want).unwrap();
                assert_eq!(*got, want, "{log:?} {how:?} {packing:?} {order:?} {row:?}");
            }
        }
    }
}

fn mean_and_deviation_are_taken_out<D: Device>(device: &D) {
    let rows = Rows::new(device, &RAGGED);
    let values: Vec<f32> = noise(N_BANDS * rows.n_frames())
        .iter()
        .map(|x| 3.0 * x + 20.0)
        .collect();

    for order in ORDERS {
        let mut plan = PackDevice::new(N_BANDS, order, Packing::F32);
        let how = (LogArgs::Linear, Normalize::MeanVar);
        let got = packed(device, &rows, &values, &mut plan, how, 4);

        for ((row, values), got) in rows.split(&values, N_BANDS).zip(&got) {
            let frames = [row.n_frames, row.n_kept].map(|n| n as usize);
            let want = on_cpu(values, frames, how.0, how.1, order);
            for (at, (got, want)) in as_f32(got).iter().zip(&want).enumerate() {
                assert!(
                    (got - want).abs() <= MEAN_VAR_MAX,
                    "{order:?} {row:?} value {at}: {got}, not {want}"
                );
            }
        }
    }
}

/// Returns all finite f16 numbers, the midpoints between neighbours, and both f32 neighbours of each midpoint.
fn around_halves() -> Vec<f32> {
    let mut positive = vec![
        f32::MIN_POSITIVE,
        1e-45,
        2f32.powi(-25),
        2f32.powi(-25).next_up(),
        2f32.powi(-26),
    ];

    for bits in 0..=0x7bffu16 {
        let value = f16::from_bits(bits).to_f32();
        let above = f16::from_bits(bits + 1);
        let next = if above.is_finite() {
            above.to_f32()
        } else {
            65_520f32.next_down()
        };
        let middle = if above.is_finite() {
            (value + next) / 2.0
        } else {
            next
        };

        positive.extend([
            value,
            middle.next_down(),
            middle,
            middle.next_up().min(next.max(value)),
        ]);
    }
    positive.into_iter().flat_map(|x| [x, -x]).collect()
}

fn every_half_is_rounded_as_ieee_has_it<D: Device>(device: &D) {
    let values = around_halves();
    let rows = Rows::new(device, &[(values.len(), values.len())]);

    let mut plan = PackDevice::new(1, DimOrder::BandFrame, Packing::F16);
    let got = packed(
        device,
        &rows,
        &values,
        &mut plan,
        (LogArgs::Linear, Normalize::None),
        2,
    );
    assert_eq!(plan.faults().collect::<Vec<_>>(), [None]);

    for (pair, value) in got[0].chunks_exact(2).zip(&values) {
        let (got, want) = (
            u16::from_le_bytes([pair[0], pair[1]]),
            f16::from_f32(*value).to_bits(),
        );
        assert_eq!(got, want, "{value:e}");
    }
}

fn what_a_type_cannot_hold_is_found<D: Device>(device: &D) {
    let unit = Packing::U8 {
        low: 0.0,
        high: 1.0,
    };
    let rows = Rows::new(device, &[(3, 3), (40, 35), (40, 35)]);

    for (value, packing, bytes) in [
        (65_520.0, Packing::F16, 2),
        (-65_520.0, Packing::F16, 2),
        (f32::NAN, Packing::F16, 2),
        (f32::INFINITY, Packing::F32, 4),
        (1.000_001, unit, 1),
        (-1e-6, unit, 1),
    ] {
        for order in ORDERS {
            let mut values = vec![0.5; 4 * rows.n_frames()];
            // Invalid values: in row 1, in bands 2 and 3; in row 2, in a frame that is not stored.
            let row = 4 * 3;
            values[row + 2 * 40 + 30] = value;
            values[row + 3 * 40 + 4] = value;
            values[row + 4 * 40 + 36] = value;

            let mut plan = PackDevice::new(4, order, packing);
            packed(
                device,
                &rows,
                &values,
                &mut plan,
                (LogArgs::Linear, Normalize::None),
                bytes,
            );

            let place = if order == DimOrder::BandFrame {
                2 * 35 + 30
            } else {
                4 * 4 + 3
            };
            assert_eq!(
                plan.faults().collect::<Vec<_>>(),
                [None, Some(place), None],
                "{value} as {packing:?}"
            );
        }
    }
}

fn the_error_names_the_value<D: Device>(device: &D) {
    let rows = Rows::new(device, &[(2, 2), (5, 4)]);
    let mut values = vec![0.5f32; 3 * 7];
    values[6 + 5 + 2] = 70_000.0;
    let buffer = sent(device, &values);
    let out = device.alloc(2 * 3 * 6).unwrap();

    for (order, place) in [(DimOrder::BandFrame, 6), (DimOrder::FrameBand, 7)] {
        let mut plan = PackDevice::new(3, order, Packing::F16);
        let input = PackInput {
            values: device.address(&buffer),
            kept: rows.kept,
            log: LogParams::LINEAR,
            log_ranges: 0,
            scale: Scale::None,
            bytes: device.address(&out),
        };

        plan.run(device, &rows.table, &input).unwrap();
        device.synchronize().unwrap();
        assert_eq!(plan.faults().collect::<Vec<_>>(), [None, Some(place)]);

        let error = plan.error(device, 1, place).unwrap();
        let KernelError::Pack {
            index,
            value,
            dtype,
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((index, value, dtype), (place, 70_000.0, Dtype::F16));
    }
}

on_devices!(
    stored_bytes_are_the_cpus,
    mean_and_deviation_are_taken_out,
    every_half_is_rounded_as_ieee_has_it,
    what_a_type_cannot_hold_is_found,
    the_error_names_the_value,
);
