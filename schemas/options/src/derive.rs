//! Creates derived features from the arguments of their source feature.

use crate::args::{DimOrder, FeatureArgs, Normalize};
use crate::derived::{Derived, STATISTICS};
use crate::fault::{Fault, Faults};
use crate::op::Op;
use crate::pack::Dtype;

impl FeatureArgs {
    /// Returns a feature derived from the values of this one, stored as `dtype` (default: u8 for pictures, f32
    /// for numbers).
    ///
    /// The result has the options of this feature, except for those without effect on the values: sources that differ
    /// in normalization, order of axes or stored type have equal derived features.
    ///
    /// # Errors
    /// A [`Fault`] of `source` if this feature is derived itself or is no tempogram for a tempo, or a [`Fault`] of another
    /// option.
    pub fn derive(&self, derived: Derived, dtype: Option<Dtype>) -> Result<Self, Fault> {
        if self.derived.is_some() {
            let ops = Op::spectral_names("and");
            let problem = format!("is itself derived from another feature; allowed: {ops}");
            return Err(Fault::new("source", problem));
        }

        let args = self.derive_unchecked(derived, dtype);
        args.validate().map(|()| args)
    }

    /// Derives a feature like [`FeatureArgs::derive`], but without checks. The result may be invalid and should only be
    /// used for checking.
    pub fn derive_unchecked(&self, derived: Derived, dtype: Option<Dtype>) -> Self {
        let source = self.source_values();
        Self {
            dtype: dtype.unwrap_or(derived.default_dtype()),
            derived: Some(derived),
            ..source
        }
    }

    /// Returns the faults of a derived feature's own options, without those of its source feature.
    pub fn own_faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        if let Some(derived) = &self.derived {
            derived.check(self.op, &mut faults);
        }
        if let Err(fault) = self.packing() {
            faults.push(fault);
        }
        faults.into_vec()
    }

    /// Returns the arguments of the feature's values before normalization. Two features with equal results have the
    /// same values, so a derived feature can be computed from either.
    pub fn source_values(&self) -> Self {
        Self {
            normalize: Normalize::None,
            dim_order: DimOrder::BandFrame,
            dtype: Dtype::F32,
            derived: None,
            ..self.clone()
        }
    }

    /// Returns the column names of a statistics tensor in row-major order, as in FMA's `features.csv`:
    /// `mfcc_kurtosis_01` … for a source called `mfcc`. `None` for other features.
    pub fn columns(&self, source: &str) -> Option<Vec<String>> {
        if self.derived != Some(Derived::Statistics) {
            return None;
        }

        let mut columns = Vec::with_capacity(STATISTICS.len() * self.n_bands());
        for statistic in STATISTICS {
            // Statistics columns are numbered from 1 with at least two digits.
            columns.extend((1..=self.n_bands()).map(|n| format!("{source}_{statistic}_{n:02}")));
        }
        Some(columns)
    }
}

#[cfg(test)]
mod tests {
    use wavemill_tests::options;

    use super::*;
    use crate::words::Named;
    use crate::{ColourMap, FeatureSpec, Packing, PictureArgs};

    fn mfcc() -> FeatureArgs {
        let spec = options!(op: Op::Mfcc);
        spec.resolve(&[], 22_050).unwrap()
    }

    fn log_mel(spec: FeatureSpec) -> FeatureArgs {
        spec.resolve(&[], 22_050).unwrap()
    }

    fn picture(height: Option<usize>, width: Option<usize>) -> Derived {
        Derived::Picture(PictureArgs {
            height,
            width,
            ..PictureArgs::default()
        })
    }

    #[test]
    fn seven_statistics_per_band_are_named_as_in_fma() {
        let args = mfcc().derive(Derived::Statistics, None).unwrap();
        assert_eq!(args.shape(66_150), [7, 20]);
        assert_eq!(args.dim_names(), ["statistic", "coefficient"]);
        assert_eq!(args.dtype, Dtype::F32);

        let columns = args.columns("mfcc").unwrap();
        assert_eq!(columns.len(), 140);
        assert_eq!(columns[0], "mfcc_kurtosis_01");
        assert_eq!(columns[20], "mfcc_max_01");
        assert_eq!(columns[139], "mfcc_std_20");
        assert_eq!(mfcc().columns("mfcc"), None);
    }

    #[test]
    fn pictures_default_to_one_pixel_per_value() {
        let three_s = 66_150;
        let plain = log_mel(FeatureSpec::default())
            .derive(picture(None, None), None)
            .unwrap();
        assert_eq!(plain.shape(three_s), [3, 128, 130]);
        assert_eq!(plain.dim_names(), ["channel", "row", "column"]);
        assert_eq!(
            plain.packing().unwrap(),
            Packing::U8 {
                low: 0.0,
                high: 1.0
            }
        );
        assert_eq!(
            plain.stored_shape(None),
            [Some(3), Some(128), None],
            "its columns follow the clip's length"
        );

        let sized = log_mel(FeatureSpec::default())
            .derive(picture(Some(224), Some(200)), Some(Dtype::F16))
            .unwrap();
        assert_eq!(sized.shape(three_s), [3, 224, 200]);
        assert_eq!(sized.stored_shape(None), [Some(3), Some(224), Some(200)]);
    }

    fn statistics_of(source: FeatureArgs) -> FeatureArgs {
        source.derive(Derived::Statistics, None).unwrap()
    }

    #[test]
    fn irrelevant_options_do_not_change_identity() {
        let scaled = options!(normalize: Normalize::MinMax, dim_order: "frame,mel".to_owned());
        let scaled = statistics_of(log_mel(scaled));
        let default = statistics_of(log_mel(FeatureSpec::default()));
        assert_eq!(scaled, default);

        let other = options!(n_mels: 64);
        assert_ne!(statistics_of(log_mel(other)), default);
    }

    #[test]
    fn invalid_options_name_their_key() {
        for (derived, dtype, key) in [
            (Derived::Statistics, Some(Dtype::F16), "dtype"),
            (Derived::Statistics, Some(Dtype::U8), "dtype"),
            (picture(Some(0), None), None, "height"),
            (picture(None, Some(100_000)), None, "width"),
        ] {
            assert_eq!(mfcc().derive(derived, dtype).unwrap_err().key, key);
        }

        let twice = mfcc().derive(Derived::Statistics, None).unwrap();
        let error = twice.derive(picture(None, None), None).unwrap_err();
        assert_eq!(error.key, "source");
        assert!(ColourMap::named("jet").is_err());
    }

    /// A feature that is not derived must be serialized without the key `derived`.
    #[test]
    fn a_plain_feature_is_serialised_as_before() {
        let json = serde_json::to_string(&mfcc()).unwrap();
        assert!(!json.contains("derived"), "{json}");
        let json =
            serde_json::to_string(&mfcc().derive(Derived::Statistics, None).unwrap()).unwrap();
        assert!(json.contains(r#""derived":{"op":"statistics"}"#), "{json}");
    }
}
