// Every op on every device of this machine, against RefDevice<double>: values, batch invariance,
// independence of the number of threads, in f32 and bf16, dense and strided. Devices come from the
// registry and ops from all_ops(): what is added there is tested here.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "backend/registry.h"
#include "base/rng.h"
#include "base/threads.h"
#include "tests/ops/op_run.h"

namespace wels {
namespace {

const std::map<std::string, std::vector<OpCase>>& cases_by_op() {
  static const auto all = [] {
    std::map<std::string, std::vector<OpCase>> out;
    for (OpCase& c : all_ops()) out[c.op].push_back(std::move(c));
    return out;
  }();
  return all;
}

Device& device(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Device>> made;
  auto& dev = made[name];
  if (!dev) dev = make_device(name);
  return *dev;
}

// One test per op and dtype; the devices take turns, so that the oracle computes each case once.
class EveryOp : public testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  const std::vector<OpCase>& cases() const { return cases_by_op().at(std::get<0>(GetParam())); }
  DType dtype() const { return std::get<1>(GetParam()); }
  void TearDown() override { set_thread_count(threads_); }
  int threads_ = thread_count();
};

TEST_P(EveryOp, EqualsTheReferenceInDouble) {
  std::map<std::string, int> wrong;
  for (size_t i = 0; i < cases().size(); ++i) {
    OpRun want(device("ref:double"), {.dtype = dtype(), .oracle = true});
    cases()[i].call(want);
    for (const std::string& name : test_devices()) {
      for (bool strided : {false, true}) {
        if (wrong[name] >= 4) continue;  // enough to see what it is
        SCOPED_TRACE(name + ", case " + std::to_string(i) + (strided ? ", strided" : ""));
        OpRun got(device(name), {.dtype = dtype(), .strided = strided});
        cases()[i].call(got);
        EXPECT_TRUE(got.intact()) << "wrote outside its rows";
        ASSERT_EQ(got.outputs().size(), want.outputs().size());
        for (size_t k = 0; k < got.outputs().size(); ++k) {
          std::string problem = difference(got.outputs()[k], want.outputs()[k], dtype());
          if (problem.empty()) continue;
          ++wrong[name];
          ADD_FAILURE() << problem;
        }
      }
    }
  }
}

TEST_P(EveryOp, GivesTheSameBitsForARowWhateverElseIsInItsBatch) {
  for (const std::string& name : test_devices()) {
    bool same = true;
    for (size_t i = 0; i < cases().size() && same; ++i) {
      const OpCase& c = cases()[i];
      if (!c.by_row || c.rows < 2) continue;
      OpRun whole(device(name), {.dtype = dtype()});
      c.call(whole);
      std::vector<std::vector<int64_t>> subsets{{0}, {c.rows - 1}, {c.rows / 2}, {}};
      for (int64_t r = 1; r < c.rows; r += 2) subsets.back().push_back(r);
      for (size_t s = 0; s < subsets.size() && same; ++s) {
        OpRun part(device(name), {.dtype = dtype(), .only = subsets[s], .all = false});
        c.call(part);
        for (size_t k = 0; k < part.outputs().size(); ++k) {
          for (size_t j = 0; j < subsets[s].size() && same && part.outputs()[k].by_row; ++j) {
            std::string problem = bit_difference(part.outputs()[k], static_cast<int64_t>(j),
                                                 whole.outputs()[k], subsets[s][j]);
            same = problem.empty();
            EXPECT_TRUE(same) << name << ", case " << i << ", " << subsets[s].size() << " of "
                              << c.rows << " rows: " << problem;
          }
        }
      }
    }
  }
}

TEST_P(EveryOp, GivesTheSameBitsOnAnyNumberOfThreads) {
  for (const std::string& name : test_devices()) {
    bool same = true;
    for (size_t i = 0; i < cases().size() && same; ++i) {
      set_thread_count(1);
      OpRun one(device(name), {.dtype = dtype()});
      cases()[i].call(one);
      set_thread_count(3);
      OpRun three(device(name), {.dtype = dtype()});
      cases()[i].call(three);
      for (size_t k = 0; k < one.outputs().size() && same; ++k) {
        for (int64_t r = 0; r < one.outputs()[k].t.rows && same; ++r) {
          std::string problem = bit_difference(three.outputs()[k], r, one.outputs()[k], r);
          same = problem.empty();
          EXPECT_TRUE(same) << name << ", case " << i << ", 3 threads and 1: " << problem;
        }
      }
    }
  }
}

std::vector<std::string> op_names() {
  std::vector<std::string> out;
  for (const auto& [op, cases] : cases_by_op()) out.push_back(op);
  return out;
}

std::string test_name(const testing::TestParamInfo<EveryOp::ParamType>& info) {
  return std::get<0>(info.param) + "_" + std::string(wels::name(std::get<1>(info.param)));
}

INSTANTIATE_TEST_SUITE_P(Ops, EveryOp,
                         testing::Combine(testing::ValuesIn(op_names()),
                                          testing::Values(DType::kF32, DType::kBF16)),
                         test_name);

TEST(OpHarness, FindsAWrongValueAnUnwrittenOneAndAMissingNan) {
  auto output = [](Tensor t) { return Output{"y", t, {}, true}; };
  OpRun want(device("ref:double"), {.oracle = true}), got(device("ref"), {});
  Tensor a = want.given({1, 2, 3, 4}, 2, 2, DType::kF64),
         b = got.given({1, 2, 3, 4}, 2, 2, DType::kF32);
  EXPECT_EQ(difference(output(b), output(a), DType::kF32), "");
  set_element(b, 1, 0, 3 * (1 + 1e-4));
  EXPECT_NE(difference(output(b), output(a), DType::kF32), "");
  set_element(b, 1, 0, std::nan(""));
  EXPECT_NE(difference(output(b), output(a), DType::kF32), "");
  set_element(a, 1, 0, std::nan(""));
  EXPECT_EQ(difference(output(b), output(a), DType::kF32), "");
}

TEST(OpHarness, FindsAWriteBetweenTheRowsOfAStridedTensor) {
  OpRun run(device("ref"), {.strided = true});
  Tensor t = run.output_rows("y", 3, 4);
  EXPECT_TRUE(run.intact());
  t.row<float>(1)[4] = 1;
  EXPECT_FALSE(run.intact());
}

}  // namespace
}  // namespace wels
