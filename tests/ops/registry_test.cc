// Devices by name.
#include "backend/registry.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace wels {
namespace {

TEST(Registry, MakesEveryTestDeviceByItsName) {
  for (const std::string& name : test_devices()) {
    EXPECT_EQ(make_device(name)->name().substr(0, 3), name.substr(0, 3));
  }
  EXPECT_EQ(make_device("ref:double")->name(), "ref:double");
  EXPECT_THAT(test_devices(), testing::Not(testing::Contains("ref:double")));
}

TEST(Registry, SaysWhichDevicesThereAre) {
  for (const char* name : {"", "gpu", "cuda", "cuda:0", "cpu:sse9", "ref:half"}) {
    try {
      make_device(name);
      ADD_FAILURE() << "\"" << name << "\" is a device";
    } catch (const Error& e) {
      EXPECT_FALSE(e.hint().empty()) << e.what();
    }
  }
}

}  // namespace
}  // namespace wels
