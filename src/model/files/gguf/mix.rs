//! Which type each tensor of a written GGUF file has: the mixtures that go by the names of llama.cpp's `llama-quantize`,
//! with its fallbacks where a row is no whole number of blocks.

use candle_core::quantized::GgmlDType;
use clap::ValueEnum;

/// What a GGUF file is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    /// Four bytes a weight, exact.
    #[value(name = "f32")]
    F32,
    /// Two bytes, rounded to 11 bits of mantissa.
    #[value(name = "f16")]
    F16,
    /// Two bytes, rounded to 8 bits of mantissa.
    #[value(name = "bf16")]
    Bf16,
    /// 8.5 bits a weight.
    #[value(name = "q8_0")]
    Q8_0,
    /// 6.6 bits.
    #[value(name = "q6_k")]
    Q6K,
    /// 5.5 bits, and 6.6 for what matters most.
    #[value(name = "q5_k_m")]
    Q5KM,
    /// 4.5 bits, and 6.6 for what matters most.
    #[value(name = "q4_k_m")]
    Q4KM,
    /// 4.5 bits, in the oldest of the formats.
    #[value(name = "q4_0")]
    Q4_0,
}

/// What the choice depends on beside the tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Layers of the model.
    pub(super) layers: usize,
    /// Whether the embedding is the output matrix too.
    pub(super) tied: bool,
    /// Query heads for each key and value head.
    pub(super) group: usize,
    /// Experts of a layer; 0 where there are none.
    pub(super) experts: usize,
}

impl Mix {
    /// The name that the command line has for it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The number of `general.file_type`.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }

    /// The type of most matrices.
    fn usual(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q5KM => GgmlDType::Q5K,
            Self::Q4KM => GgmlDType::Q4K,
            Self::Q4_0 => GgmlDType::Q4_0,
        }
    }

    /// The type of a tensor by its name in GGUF files; norms, biases and routers stay exact.
    pub(super) fn of_tensor(self, name: &str, dimensions: &[usize], shape: Shape) -> GgmlDType {
        let ([_, width] | [_, _, width]) = dimensions else { return GgmlDType::F32 };
        if [super::names::ROUTER, super::names::TAPS].iter().any(|exact| name.ends_with(exact)) {
            return GgmlDType::F32;
        }
        let usual = self.usual();
        if usual.block_size() == 1 {
            return usual;
        }
        let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let (layer, part) = layer.map_or((0, name), |(layer, part)| (layer.parse().unwrap_or(0), part));
        let is_output = name == super::names::OUTPUT || (shape.tied && name == super::names::EMBEDDING);
        let mixed = matches!(self, Self::Q4KM | Self::Q5KM);
        let wanted = match part {
            _ if is_output && !width.is_multiple_of(usual.block_size()) => GgmlDType::Q8_0,
            _ if is_output && usual != GgmlDType::Q8_0 => GgmlDType::Q6K,
            // Of eight experts the rest is so little that its bits are cheap.
            "attn_k.weight" | "attn_v.weight" if shape.experts == 8 => GgmlDType::Q8_0,
            "attn_output.weight" if shape.experts == 8 && self == Self::Q4KM => GgmlDType::Q5K,
            "attn_v.weight" | "ffn_down.weight" | "ffn_down_exps.weight" | "ffn_down_shexp.weight"
                if mixed && matters(layer, shape.layers) =>
            {
                GgmlDType::Q6K
            }
            // Queries, keys and values in one.
            "attn_qkv.weight" if self == Self::Q4KM => GgmlDType::Q5K,
            "attn_qkv.weight" if self == Self::Q5KM => GgmlDType::Q6K,
            // In models of 80 layers eight heads share a value head, so that its bits are cheap.
            "attn_v.weight" if self == Self::Q4KM && shape.layers == 80 && shape.group > 1 => GgmlDType::Q5K,
            _ => usual,
        };
        fitting(wanted, *width)
    }
}

/// Whether more bits are worth their place in a layer: in the outer eighths, and every third between.
fn matters(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The type itself, or the nearest one whose blocks a row of `width` values is made of; else F16.
pub(in crate::model::files) fn fitting(wanted: GgmlDType, width: usize) -> GgmlDType {
    let fits = |dtype: GgmlDType| width.is_multiple_of(dtype.block_size());
    let smaller = match wanted {
        _ if fits(wanted) => return wanted,
        GgmlDType::Q4K => GgmlDType::Q5_0,
        GgmlDType::Q5K => GgmlDType::Q5_1,
        GgmlDType::Q6K => GgmlDType::Q8_0,
        other => other,
    };
    if fits(smaller) { smaller } else { GgmlDType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mixture_gives_a_tensor_the_type_that_llama_cpp_gives_it() {
        let wide = Shape { layers: 32, tied: false, group: 4, experts: 0 };
        let narrow = Shape { layers: 30, tied: true, group: 3, experts: 0 };
        let (eight, many) = (Shape { experts: 8, ..wide }, Shape { experts: 64, ..wide });
        for (mix, name, dimensions, shape, expected) in [
            (Mix::Q4KM, "token_embd.weight", &[32000, 4096][..], wide, GgmlDType::Q4K),
            (Mix::Q4KM, "output.weight", &[32000, 4096], wide, GgmlDType::Q6K),
            (Mix::Q4KM, "blk.0.attn_v.weight", &[1024, 4096], wide, GgmlDType::Q6K),
            (Mix::Q4KM, "blk.4.attn_v.weight", &[1024, 4096], wide, GgmlDType::Q4K),
            (Mix::Q4KM, "blk.6.ffn_down.weight", &[4096, 14336], wide, GgmlDType::Q6K),
            (Mix::Q4KM, "blk.6.ffn_up.weight", &[14336, 4096], wide, GgmlDType::Q4K),
            (Mix::Q5KM, "blk.31.ffn_down.weight", &[4096, 14336], wide, GgmlDType::Q6K),
            (Mix::Q5KM, "blk.5.ffn_down.weight", &[4096, 14336], wide, GgmlDType::Q5K),
            (Mix::Q4KM, "blk.20.attn_v.weight", &[1024, 8192], Shape { layers: 80, ..wide }, GgmlDType::Q5K),
            (Mix::Q8_0, "output.weight", &[32000, 4096], wide, GgmlDType::Q8_0),
            (Mix::Q4_0, "output.weight", &[32000, 4096], wide, GgmlDType::Q6K),
            (Mix::Q4_0, "blk.0.ffn_down.weight", &[4096, 14336], wide, GgmlDType::Q4_0),
            (Mix::F16, "blk.0.attn_norm.weight", &[4096], wide, GgmlDType::F32),
            (Mix::F16, "output.weight", &[32000, 4096], wide, GgmlDType::F16),
            (Mix::Q4KM, "blk.0.ffn_down_exps.weight", &[64, 4096, 512], many, GgmlDType::Q6K),
            (Mix::Q4KM, "blk.4.ffn_down_exps.weight", &[64, 4096, 512], many, GgmlDType::Q4K),
            (Mix::Q4KM, "blk.0.ffn_up_exps.weight", &[64, 512, 4096], many, GgmlDType::Q4K),
            (Mix::Q4KM, "blk.0.attn_v.weight", &[1024, 4096], many, GgmlDType::Q6K),
            (Mix::Q4KM, "blk.4.attn_k.weight", &[1024, 4096], eight, GgmlDType::Q8_0),
            (Mix::Q4KM, "blk.4.attn_output.weight", &[4096, 4096], eight, GgmlDType::Q5K),
            (Mix::Q4_0, "blk.0.ffn_gate_inp.weight", &[64, 4096], many, GgmlDType::F32),
            (Mix::F16, "blk.0.ffn_gate_inp_shexp.weight", &[4096], many, GgmlDType::F32),
            (Mix::Q4KM, "blk.0.attn_qkv.weight", &[6144, 1024], wide, GgmlDType::Q5K),
            (Mix::F16, "blk.0.ssm_conv1d.weight", &[6144, 4], wide, GgmlDType::F32),
            // Rows of 576 are no whole blocks of 256.
            (Mix::Q4KM, "token_embd.weight", &[49152, 576], narrow, GgmlDType::Q8_0),
            (Mix::Q4_0, "token_embd.weight", &[49152, 576], narrow, GgmlDType::Q8_0),
            (Mix::Q4KM, "blk.0.attn_q.weight", &[576, 576], narrow, GgmlDType::Q5_0),
            (Mix::Q4KM, "blk.0.attn_v.weight", &[192, 576], narrow, GgmlDType::Q8_0),
            (Mix::Q4KM, "blk.0.ffn_down.weight", &[576, 1536], narrow, GgmlDType::Q6K),
            (Mix::Q5KM, "blk.0.attn_q.weight", &[576, 576], narrow, GgmlDType::Q5_1),
            (Mix::Q8_0, "blk.0.attn_q.weight", &[40, 40], narrow, GgmlDType::F16),
        ] {
            assert_eq!(mix.of_tensor(name, dimensions, shape), expected, "{mix:?} {name}");
        }
    }
}
