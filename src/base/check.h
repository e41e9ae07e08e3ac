// CHECK(a == b): a bug of ours. Prints the expression and both values, then aborts. Never for bad
// input: that is Error.
#pragma once
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>

namespace wels::check_detail {

template <class T>
std::string show(const T& v) {
  if constexpr (std::is_enum_v<T>) {
    return fmt::format("{}", static_cast<long long>(v));
  } else if constexpr (fmt::is_formattable<T>::value && !std::is_pointer_v<T>) {
    return fmt::format("{}", v);
  } else {
    return "?";
  }
}

// The left operand of a comparison, caught by `Left() << a`; comparing it keeps the text of both
// sides.
template <class L>
struct Compared {
  const L& left;
  struct Result {
    bool ok;
    std::string values;
    explicit operator bool() const {
      return ok;
    }  // CHECK(a < b && c < d): no values, but it compiles
  };
#define WELS_CHECK_OP(op)                                                     \
  template <class R>                                                          \
  Result operator op(const R& right) const {                                  \
    bool ok = left op right;                                                  \
    return {ok, ok ? std::string() : show(left) + " " #op " " + show(right)}; \
  }
  WELS_CHECK_OP(==)
  WELS_CHECK_OP(!=)
  WELS_CHECK_OP(<)
  WELS_CHECK_OP(<=)
  WELS_CHECK_OP(>)
  WELS_CHECK_OP(>=)
#undef WELS_CHECK_OP
  explicit operator bool() const { return static_cast<bool>(left); }
};
struct Left {
  template <class L>
  Compared<L> operator<<(const L& left) const {
    return {left};
  }
};
struct Outcome {
  bool ok;
  std::string values;
  Outcome(bool value) : ok(value), values("false") {}
  template <class R>
  Outcome(const R& r) requires requires {
    r.values;
  } : ok(r.ok), values(r.values) {
  }
  template <class L>
  Outcome(const Compared<L>& c) : ok(static_cast<bool>(c.left)), values("false") {}
};

[[noreturn]] inline void fail(const char* file, int line, const char* text,
                              const std::string& values) {
  std::fprintf(stderr, "%s:%d: CHECK(%s) failed: %s\n", file, line, text, values.c_str());
  std::abort();
}

}  // namespace wels::check_detail

#define CHECK(...)                                                                                \
  do {                                                                                            \
    if (::wels::check_detail::Outcome wels_outcome = ::wels::check_detail::Left() << __VA_ARGS__; \
        !wels_outcome.ok) [[unlikely]]                                                            \
      ::wels::check_detail::fail(__FILE__, __LINE__, #__VA_ARGS__, wels_outcome.values);          \
  } while (false)

#ifdef NDEBUG
#define DCHECK(...) static_cast<void>(0)
#else
#define DCHECK(...) CHECK(__VA_ARGS__)
#endif
