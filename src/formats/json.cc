#include "formats/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include "base/check.h"
#include "base/error.h"

namespace wels {

std::string printable(std::string_view text) {
  constexpr size_t kMost = 120;
  std::string out;
  for (unsigned char c : text.substr(0, kMost)) {
    if (c < 0x20 || c == 0x7f) {
      out += '?';
    } else {
      out += static_cast<char>(c);
    }
  }
  // The JSON library replaces broken UTF-8; the quotes and backslashes it adds are taken off again.
  std::string quoted =
      nlohmann::json(out).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  out.clear();
  for (size_t i = 1; i + 1 < quoted.size(); ++i) {
    if (quoted[i] == '\\') ++i;
    out += quoted[i];
  }
  return text.size() > kMost ? out + "..." : out;
}

namespace {

// The library's "[json.exception.parse_error.101] parse error at line 1, column 8: syntax error
// while parsing value - invalid literal; ..." as " at column 8: invalid literal; ...".
std::string reason_of(std::string_view what) {
  auto drop_to = [&](std::string_view mark) {
    size_t at = what.find(mark);
    if (at != what.npos) what.remove_prefix(at + mark.size());
    return at != what.npos;
  };
  drop_to("] ");
  std::string place;
  if (drop_to("parse error at ")) {
    size_t end = what.find(": ");
    place = " at " + std::string(what.substr(0, end));
    if (place.starts_with(" at line 1, ")) place.replace(0, 12, " at ");
    drop_to(": ");
    if (what.starts_with("syntax error while parsing")) drop_to(" - ");
  }
  return place + ": " + printable(what);
}

// Builds a value with the checks of parse_json, in time that grows with the text: the library's
// parsers with a callback or of ordered objects look through a container for each of its members,
// which strangers could make last for minutes.
template <class Json>
class Builder final : public nlohmann::json_sax<Json> {
 public:
  using typename nlohmann::json_sax<Json>::number_integer_t;
  using typename nlohmann::json_sax<Json>::number_unsigned_t;
  using typename nlohmann::json_sax<Json>::number_float_t;
  using typename nlohmann::json_sax<Json>::string_t;
  using typename nlohmann::json_sax<Json>::binary_t;

  explicit Builder(const std::string& where) : where_(where) {}
  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool v) override { return put(v); }
  bool number_integer(number_integer_t v) override { return put(v); }
  bool number_unsigned(number_unsigned_t v) override { return put(v); }
  bool number_float(number_float_t v, const string_t&) override { return put(v); }
  bool string(string_t& v) override { return put(std::move(v)); }
  bool binary(binary_t& v) override { return put(std::move(v)); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& v) override {
    if (!open_.back().keys.insert(v).second)
      throw Error(where_, fmt::format("key \"{}\" appears twice in one JSON object", printable(v)));
    key_ = std::move(v);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) override {
    throw Error(where_, "not valid JSON" + reason_of(e.what()));
  }

 private:
  static constexpr size_t kDeepest = 64;
  struct Open {
    Json* value;
    std::unordered_set<std::string> keys;  // of an object
  };
  Json* place(Json v) {
    if (open_.empty()) return &(root_ = std::move(v));
    Json& in = *open_.back().value;
    if (in.is_array()) {
      in.push_back(std::move(v));
      return &in.back();
    }
    auto& members = *in.template get_ptr<typename Json::object_t*>();
    if constexpr (std::is_same_v<Json, nlohmann::ordered_json>) {
      auto& list = static_cast<typename Json::object_t::Container&>(members);
      list.emplace_back(std::move(key_), std::move(v));
      return &list.back().second;
    } else {
      return &members.emplace(std::move(key_), std::move(v)).first->second;
    }
  }
  bool put(Json v) {
    place(std::move(v));
    return true;
  }
  // What holds an open container does not grow until it is closed, so the pointer stays good.
  bool open(Json v) {
    if (open_.size() >= kDeepest)
      throw Error(where_, fmt::format("JSON nested deeper than {}", kDeepest));
    open_.push_back({place(std::move(v)), {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& where_;
  Json root_;
  std::vector<Open> open_;
  std::string key_;
};

template <class Json>
Json parse(std::string_view text, const std::string& where) {
  Builder<Json> builder(where);
  CHECK(Json::sax_parse(text.begin(), text.end(), &builder));
  return builder.take();
}

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  return parse<nlohmann::json>(text, where);
}

nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& where) {
  return parse<nlohmann::ordered_json>(text, where);
}

}  // namespace wels
