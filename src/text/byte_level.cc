#include <array>

#include "text/unicode.h"
#include "text/vocab_source.h"

namespace wels {
namespace {

constexpr bool stands_for_itself(int b) {
  return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

struct ByteTable {
  std::array<uint16_t, 256> to_char{};
  std::array<int16_t, 0x144> to_byte{};
  constexpr ByteTable() {
    for (auto& b : to_byte) b = -1;
    uint16_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      to_char[b] = stands_for_itself(b) ? static_cast<uint16_t>(b) : next++;
      to_byte[to_char[b]] = static_cast<int16_t>(b);
    }
  }
};
constexpr ByteTable kBytes;

}  // namespace

uint32_t byte_to_char(uint8_t byte) { return kBytes.to_char[byte]; }

int char_to_byte(uint32_t code) { return code < kBytes.to_byte.size() ? kBytes.to_byte[code] : -1; }

std::string bytes_to_text(std::string_view bytes) {
  std::string out;
  for (char b : bytes) append_utf8(out, byte_to_char(static_cast<uint8_t>(b)));
  return out;
}

bool text_to_bytes(std::string_view text, std::string& bytes) {
  bytes.clear();
  auto* p = reinterpret_cast<const uint8_t*>(text.data());
  for (auto* end = p + text.size(); p < end;) {
    Char c = read_char(p, end);
    int byte = char_to_byte(c.code);
    if (byte < 0) return false;
    bytes += static_cast<char>(byte);
    p += c.size;
  }
  return true;
}

}  // namespace wels
