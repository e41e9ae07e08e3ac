#include "text/event_stream.h"

#include <gtest/gtest.h>

#include <vector>

namespace wels {
namespace {

std::vector<std::string> events(std::string_view text, size_t piece) {
  std::vector<std::string> out;
  EventStream stream;
  for (size_t i = 0; i < text.size(); i += piece)
    stream.push(text.substr(i, piece), [&](std::string_view data) { out.emplace_back(data); });
  return out;
}

TEST(EventStream, PiecesMayEndAnywhere) {
  std::string text =
      ": keep-alive\n\ndata: {\"a\": 1}\n\nevent: x\nid: 7\ndata:two\r\ndata: lines\r\n\r\n"
      "data\n\ndatabase: no\n\nretry: 3\n\ndata:  [DONE]\r\rdata: never ended";
  std::vector<std::string> want = {"{\"a\": 1}", "two\nlines", "", " [DONE]"};
  for (size_t piece : {1, 2, 3, 7, 1000}) EXPECT_EQ(events(text, piece), want) << piece;
}

}  // namespace
}  // namespace wels
