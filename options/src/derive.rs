//! Creates derived features from the arguments of their source feature.

use crate::args::{DimOrder, FeatureArgs, Normalize};
use crate::derived::{Derived, STATISTICS};
use crate::fault::{Fault, Faults};
use crate::op::Op;
use crate::pack::Dtype;

impl FeatureArgs {
    /// Returns a feature derived from the values of this one, stored as `dtype` (default: f32 for statistics, u8 for
    /// pictures).
    ///
    /// The result has the options of this feature, except for those without effect on the values: sources that differ
    /// in normalization, order of axes or stored type have equal derived features.
    ///
    /// # Errors
    /// A [`Fault`] of `source` if this feature is derived itself, or a [`Fault`] of `width`, `height` or `dtype`.
    pub fn derive(&self, derived: Derived, dtype: Option<Dtype>) -> Result<Self, Fault> {
        if self.derived.is_some() {
            let ops = Op::audio_names("and");
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

    /// Returns the faults of a derived feature's own options, without those of its source.
    pub fn own_faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        if let Some(derived) = &self.derived {
            derived.check(&mut faults);
        }
        if let Err(fault) = self.packing() {
            faults.push(fault);
        }
        faults.into_vec()
    }

    /// Returns the arguments of the values before normalization. They are equal for features that can be computed from
    /// each other's values.
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
            // Numbers start at 1 and have at least two digits.
            columns.extend((1..=self.n_bands()).map(|n| format!("{source}_{statistic}_{n:02}")));
        }
        Some(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Named;
    use crate::{ColourMap, FeatureSpec, Packing, PictureArgs};

    fn mfcc() -> FeatureArgs {
        let spec = FeatureSpec {
            op: Op::Mfcc,
            ..FeatureSpec::default()
        };
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

    #[test]
    fn irrelevant_options_do_not_change_identity() {
        let scaled = FeatureSpec {
            normalize: Normalize::MinMax,
            dim_order: Some("frame,mel".to_owned()),
            ..FeatureSpec::default()
        };
        let derive = |source: FeatureArgs| source.derive(Derived::Statistics, None).unwrap();
        assert_eq!(
            derive(log_mel(scaled)),
            derive(log_mel(FeatureSpec::default()))
        );

        let other = FeatureSpec {
            n_mels: Some(64),
            ..FeatureSpec::default()
        };
        assert_ne!(
            derive(log_mel(other)),
            derive(log_mel(FeatureSpec::default()))
        );
    }

    #[test]
    fn invalid_options_name_their_key() {
        let of = |derived, dtype| mfcc().derive(derived, dtype).unwrap_err().key;
        assert_eq!(of(Derived::Statistics, Some(Dtype::F16)), "dtype");
        assert_eq!(of(Derived::Statistics, Some(Dtype::U8)), "dtype");
        assert_eq!(of(picture(Some(0), None), None), "height");
        assert_eq!(of(picture(None, Some(100_000)), None), "width");

        let twice = mfcc().derive(Derived::Statistics, None).unwrap();
        let error = twice.derive(picture(None, None), None).unwrap_err();
        assert_eq!(error.key, "source");
        assert!(ColourMap::named("jet").is_err());
    }

    /// The serialized form of a feature that is not derived has no new key.
    #[test]
    fn a_plain_feature_is_serialised_as_before() {
        let json = serde_json::to_string(&mfcc()).unwrap();
        assert!(!json.contains("derived"), "{json}");
        let json =
            serde_json::to_string(&mfcc().derive(Derived::Statistics, None).unwrap()).unwrap();
        assert!(json.contains(r#""derived":{"op":"statistics"}"#), "{json}");
    }
}
