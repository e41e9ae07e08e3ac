// Which type each tensor of a GGUF file gets: the types that users name, and the mixtures behind
// them. The rules are those of llama.cpp's quantize, so that files of one name compare, extended to
// MLA.
//
//   always      norms, biases, router and its selection bias: F32 (few bytes, and routing or scale
//               errors act on everything after them; the plan's full_precision)
//   output      the head (token_embd where they are tied): at least Q6_K, its errors go straight
//               into the logits
//   values      attn_v, MLA's attn_k_b, attn_v_b and attn_kv_a_mqa: every head reads what they
//               make, and they are small
//   ffn_down    outliers of the gated product meet it: more bits in the first and last eighth of
//               the blocks and every third between ("more"); shared experts, which see every token:
//               in all blocks
//
//   type     base   values                      ffn_down                    attn_output
//   q2_k     Q2_K   Q4_K (few query heads per   Q3_K                        Q3_K
//                   kv head: Q3_K)
//   q3_k     Q3_K   Q5_K in 2 blocks, then Q4_K Q5_K in 1/16, then Q4_K     Q4_K
//   q4_k     Q4_K   more, MLA: Q6_K             more: Q6_K                  base
//   q5_k     Q5_K   more, MLA: Q6_K             more: Q6_K                  base
//   iq4_*    base   MLA, few kv heads: Q5_K     Q5_K in the first eighth    base
//   mxfp4    routed experts (without experts: the feed-forward) in MXFP4, all else Q8_0
//   others   base everywhere
//
// Rows that are no multiple of 256 take a type of blocks of 32 with at least as many bits: Q2_K,
// Q3_K, IQ4_XS → IQ4_NL, Q4_K → Q5_0, Q5_K → Q5_1, Q6_K → Q8_0; rows that are no multiple of 32:
// F16. Source: llama.cpp, llama-quant.cpp, 2026.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "formats/gguf_deepseek.h"

namespace wels {

struct QuantMix {
  const char* name;    // as the command line has it: "q4_k"
  DType base;          // of most matrices
  uint32_t file_type;  // general.file_type, llama.cpp's number
};
std::span<const QuantMix> quant_mixes();
// nullptr: no file is made of that type.
const QuantMix* find_quant_mix(DType base);
// By name, in either case; also Q3_K_M, Q4_K_M and Q5_K_M, as llama.cpp calls those mixtures.
// Throws Error(where): unknown, with all names.
const QuantMix& find_quant_mix(const std::string& name, const std::string& where);

// The user's choice for the tensors whose GGUF name matches a pattern (*, ?, [...]).
struct TensorChoice {
  std::string pattern;
  DType dtype;
};

struct ChosenType {
  DType dtype;   // of the file
  DType wanted;  // what it would be if its rows were of the right length
};

// The type of every tensor of a plan. Of several choices for a tensor the last one counts; they do
// not reach the tensors that stay F32. Throws Error: a choice that matches nothing.
std::vector<ChosenType> choose_types(const ModelConfig& cfg,
                                     const std::vector<GgufTensorPlan>& plan, DType base,
                                     const std::vector<TensorChoice>& choices = {});

}  // namespace wels
