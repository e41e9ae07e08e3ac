// The codecs of tensor/ against the reference data; here because it is read from safetensors and
// JSON.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"
#include "tensor/quant.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Of a case that has other files.
#define SKIP_WITHOUT_FILE(name) \
  if (!fs::exists(folder_ / name)) GTEST_SKIP() << "no " << (folder_ / name) << "; set WELS_GOLDEN"

class QuantGolden : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* env = std::getenv("WELS_GOLDEN");
    folder_ = fs::path(env ? env : "../shared/golden") / "quant";
    if (!fs::exists(folder_))
      GTEST_SKIP() << "no reference data at " << folder_ << "; set WELS_GOLDEN";
  }
  std::string path(const char* name) { return (folder_ / name).string(); }
  json read(const char* name) { return parse_json(read_file(path(name)), name); }
  fs::path folder_;
};

std::vector<float> floats(const TensorEntry& e) {
  std::vector<float> out(static_cast<size_t>(e.elements()));
  std::memcpy(out.data(), e.data.data(), e.data.size());
  return out;
}
float from_bits(const std::string& hex) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::stoul(hex, nullptr, 16)));
}
bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

TEST_F(QuantGolden, Bf16RoundsToNearestEven) {
  SKIP_WITHOUT_FILE("bf16.json");
  json j = read("bf16.json");
  for (const json& c : j["rounding"]) {
    EXPECT_EQ(to_bf16(from_bits(c["f32"])).bits,
              std::stoul(c["bf16"].get<std::string>(), nullptr, 16))
        << c;
  }
  for (const json& c : j["nan_inputs"])
    EXPECT_TRUE(std::isnan(to_float(to_bf16(from_bits(c))))) << c;
}

TEST_F(QuantGolden, Fp8CodesAreExact) {
  SKIP_WITHOUT_FILE("fp8_e4m3.json");
  json j = read("fp8_e4m3.json");
  ASSERT_EQ(j["decode"].size(), 256u);
  for (int i = 0; i < 256; ++i) {
    const json& want = j["decode"][static_cast<size_t>(i)];
    float got = fp8_to_float(static_cast<uint8_t>(i));
    if (want.is_null()) {
      EXPECT_TRUE(std::isnan(got)) << i;
    } else {
      EXPECT_TRUE(same_bits(got, want.get<float>())) << i;
      EXPECT_EQ(float_to_fp8(got), i);
    }
  }
  for (const json& c : j["encode"])
    EXPECT_EQ(float_to_fp8(c["value"].get<float>()), c["code"].get<int>()) << c;
  EXPECT_TRUE(std::isnan(fp8_to_float(float_to_fp8(NAN))));
}

TEST_F(QuantGolden, Fp8ActivationTilesAreExact) {
  SKIP_WITHOUT_FILE("fp8_blocks.safetensors");
  SafetensorsReader r(path("fp8_blocks.safetensors"));
  const TensorEntry& in = r.at("activation.input");
  std::vector<float> x = floats(in);
  int64_t rows = in.shape[0], cols = in.shape[1];
  for (bool ue8m0 : {false, true}) {
    std::string prefix = ue8m0 ? "activation.ue8m0." : "activation.";
    std::vector<uint8_t> codes(x.size());
    std::vector<float> scales(static_cast<size_t>(rows * ((cols + 127) / 128)));
    fp8_quantise_tiles(x.data(), rows, cols, cols, ue8m0, codes.data(), scales.data());
    std::vector<float> want = floats(r.at(prefix + "scale"));
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(same_bits(scales[i], want[i])) << prefix << i;
    const TensorEntry& want_codes = r.at(prefix + "codes");
    EXPECT_EQ(std::vector<uint8_t>(want_codes.data.begin(), want_codes.data.end()), codes)
        << prefix;
  }
}

TEST_F(QuantGolden, Fp8WeightBlocksDecodeAndEncodeExactly) {
  SKIP_WITHOUT_FILE("fp8_blocks.safetensors");
  SafetensorsReader r(path("fp8_blocks.safetensors"));
  const TensorEntry& w = r.at("block.weight");
  int64_t rows = w.shape[0], cols = w.shape[1];
  std::vector<float> scales = floats(r.at("block.weight_scale_inv")),
                     got(static_cast<size_t>(rows * cols));
  fp8_dequantise_blocks(w.data.data(), scales.data(), rows, cols, 128, 128, got.data());
  std::vector<float> want = floats(r.at("block.dequantised"));
  for (size_t i = 0; i < want.size(); ++i) ASSERT_TRUE(same_bits(got[i], want[i])) << i;
  // Quantising the decoded matrix gives its codes back: each block holds its own largest value,
  // ±448 · scale.
  std::vector<uint8_t> codes(got.size());
  std::vector<float> again(scales.size()), decoded(got.size());
  fp8_quantise_blocks(got.data(), rows, cols, false, codes.data(), again.data());
  fp8_dequantise_blocks(codes.data(), again.data(), rows, cols, 128, 128, decoded.data());
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(decoded[i], got[i], 1e-6f * std::fabs(got[i])) << i;
}

TEST_F(QuantGolden, Fp8ProductMatchesItsDefinition) {
  SKIP_WITHOUT_FILE("fp8_blocks.safetensors");
  SafetensorsReader r(path("fp8_blocks.safetensors"));
  const TensorEntry &a = r.at("activation.codes"), &w = r.at("gemm.weight"),
                    &out = r.at("gemm.output");
  std::vector<float> sa = floats(r.at("activation.scale")),
                     sw = floats(r.at("gemm.weight_scale_inv")), want = floats(out);
  int64_t n = a.shape[0], m = w.shape[0], k = w.shape[1], blocks = (k + 127) / 128;
  float largest = 0;
  for (float v : want) largest = std::max(largest, std::fabs(v));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j) {
      double sum = 0;
      for (int64_t c = 0; c < k; ++c) {
        sum += static_cast<double>(fp8_to_float(a.data[static_cast<size_t>(i * k + c)])) *
               static_cast<double>(fp8_to_float(w.data[static_cast<size_t>(j * k + c)])) *
               static_cast<double>(sa[static_cast<size_t>(i * blocks + c / 128)]) *
               static_cast<double>(sw[static_cast<size_t>(j / 128 * blocks + c / 128)]);
      }
      EXPECT_NEAR(sum, static_cast<double>(want[static_cast<size_t>(i * m + j)]),
                  1e-6 * static_cast<double>(largest));
    }
  }
}

TEST_F(QuantGolden, EveryBlockTypeDecodesToTheReferenceValues) {
  SKIP_WITHOUT_FILE("gguf_blocks.safetensors");
  SafetensorsReader r(path("gguf_blocks.safetensors"));
  json about = read("case.json"), types = about["types"];
  auto optional = about.value("optional_types", std::vector<std::string>());
  for (const QuantFormat& q : quant_formats()) {
    EXPECT_TRUE(!is_quantised(q.dtype) || types.contains(q.gguf_name)) << q.gguf_name;
  }
  for (auto& [name, size] : types.items()) {
    SCOPED_TRACE(name);
    auto known = std::find_if(quant_formats().begin(), quant_formats().end(),
                              [type = name](const QuantFormat& q) { return q.gguf_name == type; });
    if (known == quant_formats().end()) {
      EXPECT_NE(std::find(optional.begin(), optional.end(), name), optional.end())
          << "a type that wels must know";
      continue;
    }
    const QuantFormat& f = *known;
    const TensorEntry* bytes = &r.at(name + ".bytes");
    EXPECT_EQ(size["values_per_block"], info(f.dtype).block);
    EXPECT_EQ(size["bytes_per_block"], info(f.dtype).bytes);
    std::vector<float> want = floats(r.at(std::string(f.gguf_name) + ".values")), got(want.size());
    ASSERT_EQ(bytes->data.size() / static_cast<size_t>(info(f.dtype).bytes) *
                  static_cast<size_t>(info(f.dtype).block),
              want.size());
    f.decode(bytes->data.data(), got.data(), static_cast<int64_t>(got.size()));
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_TRUE(same_bits(got[i], want[i]) ||
                  std::fabs(got[i] - want[i]) <= 1e-6f * std::fabs(want[i]))
          << i << ": " << got[i] << " " << want[i];
    }
  }
}

// The reference rounds to the nearest level of the plain scale; it has no encoders of the other
// types.
TEST_F(QuantGolden, EncodersLeaveLessThanTheReferenceBytes) {
  SKIP_WITHOUT_FILE("gguf_blocks.safetensors");
  SafetensorsReader r(path("gguf_blocks.safetensors"));
  if (!r.find("quantize.input")) GTEST_SKIP() << "no quantize.input in the reference data";
  std::vector<float> x = floats(r.at("quantize.input"));
  int64_t n = static_cast<int64_t>(x.size());
  std::vector<std::string> tested;
  for (const QuantFormat& f : quant_formats()) {
    const TensorEntry* reference = r.find(std::string("quantize.") + f.gguf_name + ".bytes");
    if (!reference) continue;
    tested.push_back(f.gguf_name);
    std::vector<uint8_t> bytes(reference->data.size());
    f.encode(x.data(), nullptr, bytes.data(), n);
    auto squares = [&](const uint8_t* from) {
      std::vector<float> y(x.size());
      f.decode(from, y.data(), n);
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i)
        sum += static_cast<double>(x[i] - y[i]) * static_cast<double>(x[i] - y[i]);
      return sum;
    };
    double ratio = squares(bytes.data()) / squares(reference->data.data());
    RecordProperty(f.gguf_name, std::to_string(ratio));
    EXPECT_LT(ratio, 0.99) << f.gguf_name;
  }
  EXPECT_EQ(tested, (std::vector<std::string>{"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}));
}

}  // namespace
}  // namespace wels
