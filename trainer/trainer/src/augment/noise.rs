//! Gaussian noise as a function of row key and position, with the same bits on every device: a hash and a table.

use tch::{Device, Kind, Tensor};

use crate::ffi;

/// Number of entries in the noise table: one for each value of 16 random bits.
const NORMALS: usize = 1 << 16;

/// Returns the noise table: [`NORMALS`] normally distributed values in ascending order, with standard deviation `std`.
pub(super) fn table(std: f64, kind: Kind, device: Device) -> Tensor {
    let table: Vec<f64> = normal_table().iter().map(|x| x * std).collect();
    ffi::on(&Tensor::from_slice(&table).to_kind(kind), device)
}

/// Returns noise `[n, values]`: entries of `table`, each selected by 16 bits of a hash of row key and position.
///
/// The hash is SplitMix64 (Steele, Lea, Flood 2014). Each 64-bit hash selects four values.
pub(super) fn draw(table: &Tensor, keys: &Tensor, values: i64) -> Tensor {
    let words = (values + 3) / 4;
    // Counters begin at 1: SplitMix64 adds its constant before mixing, so its first state is the key plus one step.
    let mut counters =
        Tensor::arange_start(1, words + 1, (Kind::Int64, keys.device())).view([1, words]);
    let _ = counters.g_mul_scalar_(0x9E37_79B9_7F4A_7C15_u64 as i64);
    let mut x = counters + keys;
    fold_in(&mut x, 30);
    let _ = x.g_mul_scalar_(0xBF58_476D_1CE4_E5B9_u64 as i64);
    fold_in(&mut x, 27);
    let _ = x.g_mul_scalar_(0x94D0_49BB_1331_11EB_u64 as i64);
    fold_in(&mut x, 31);

    // Split each 64-bit hash into four 16-bit numbers, which libtorch treats as signed.
    let chosen = x
        .view_dtype(Kind::Int16)
        .narrow(1, 0, values)
        .to_kind(Kind::Int)
        + (NORMALS / 2) as i64;
    table.index_select(0, &chosen.view(-1)).view([-1, values])
}

/// Computes x ^= x >> bits for unsigned 64-bit numbers stored as i64, whose shift would copy the sign bit.
fn fold_in(x: &mut Tensor, bits: i64) {
    let shifted = x
        .bitwise_right_shift_tensor_scalar(bits)
        .bitwise_and_((1_i64 << (64 - bits)) - 1);
    let _ = x.bitwise_xor_tensor_(&shifted);
}

/// Returns the quantiles of the normal distribution at the centres of [`NORMALS`] equal shares: mean 0, standard
/// deviation 1 to 1e-4, absolute values up to 4.3.
fn normal_table() -> Vec<f64> {
    (0..NORMALS)
        .map(|i| normal_quantile((i as f64 + 0.5) / NORMALS as f64))
        .collect()
}

/// Returns the quantile `p` of the normal distribution, with a relative error of 1.2e-9. Source: Acklam, "An algorithm
/// for computing the inverse normal cumulative distribution function" (2003).
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    // The approximation is for p up to 0.5; the upper half of the distribution is its mirror image.
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }

    // Acklam's boundary between the lower tail and the central region.
    if p < 0.024_25 {
        let q = (-2.0 * p.ln()).sqrt();
        return polynomial(&C, q) / polynomial(&D, q);
    }

    let q = p - 0.5;
    q * polynomial(&A, q * q) / polynomial(&B, q * q)
}

/// Evaluates a polynomial by Horner's rule. `coefficients` begins with the highest power.
fn polynomial(factors: &[f64], x: f64) -> f64 {
    factors.iter().fold(0.0, |sum, factor| sum * x + factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_normal_and_its_bits_are_splitmix64s() {
        let keys = [8_i64, -9];
        let table = table(0.5, Kind::Float, Device::Cpu);
        let noise = draw(&table, &Tensor::from_slice(&keys).view([2, 1]), 128_129);
        assert_eq!(noise.size(), [2, 128_129]);

        let deviation = noise.std(false).double_value(&[]);
        assert!(
            noise.mean(Kind::Double).double_value(&[]).abs() < 5e-3
                && (deviation - 0.5).abs() < 5e-3
        );

        let tail = noise
            .abs()
            .gt(1.0)
            .to_kind(Kind::Double)
            .mean(Kind::Double)
            .double_value(&[]);
        assert!((tail - 0.0455).abs() < 2e-3, "{tail} beyond two deviations");

        let rows = (noise.get(0) * noise.get(1))
            .mean(Kind::Double)
            .double_value(&[]);
        assert!(rows.abs() < 5e-3, "rows go together: {rows}");

        let mut state = keys[1] as u64;
        let table = normal_table();
        let got = Vec::<f32>::try_from(noise.get(1).narrow(0, 0, 800)).expect("f32");

        for four in got.chunks(4) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^= word >> 31;

            for (index, got) in four.iter().enumerate() {
                let bits = (word >> (16 * index)) as i16;
                let want = (table[(i32::from(bits) + (1 << 15)) as usize] * 0.5) as f32;
                assert_eq!(*got, want);
            }
        }
    }

    #[test]
    fn the_table_holds_the_normal_distribution() {
        // Checks known quantiles, then the moments of the noise table.
        for (p, want) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540_054),
            (1e-4, -3.719_016_485_455_709),
        ] {
            assert!((normal_quantile(p) - want).abs() < 1e-8, "{p}");
        }

        let table = normal_table();
        for (power, want, most) in [(1, 0.0, 1e-12), (2, 1.0, 1e-4), (4, 3.0, 5e-3)] {
            let moment = table.iter().map(|x| x.powi(power)).sum::<f64>() / NORMALS as f64;
            assert!((moment - want).abs() < most, "{power}: {moment}");
        }
        assert!(table[NORMALS - 1] < 4.35, "{}", table[NORMALS - 1]);
        assert!(table.is_sorted());
    }
}
