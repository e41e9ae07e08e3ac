// Word problems from templates, in English and in Chinese: somebody has some things, this and that
// happens to them, how many are left. The chain is one calculation per event.
#include <fmt/format.h>

#include <map>

#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

enum class Event { kGain, kLose, kGifts, kDouble, kHalf, kShare };

// One language. In texts {name} is who has the things, {other} somebody else, {things} what they
// are, {k} and {n} numbers.
struct Language {
  std::vector<std::string> names, things, begin;
  std::map<Event, std::vector<std::string>> events;
  std::string ask, ask_share;
  // The chain's words: what is had at the beginning, and before the calculation of each event.
  std::string chain_begin, between, behind;
  std::map<Event, std::string> chain;
};

const Language& english() {
  static const Language language = {
      {"Tom", "Anna", "Ben", "Mia", "Sam", "Lily", "Jack", "Emma", "Leo", "Nina", "Max", "Rosa"},
      {"apples", "books", "pens", "cards", "coins", "stamps", "eggs", "shells", "balls",
       "stickers"},
      {"{name} has {k} {things}.", "{name} starts with {k} {things}.",
       "There are {k} {things} in {name}'s box."},
      {{Event::kGain,
        {"{name} buys {k} more.", "{other} gives {name} {k} {things}.",
         "{name} finds {k} {things}."}},
       {Event::kLose,
        {"{name} gives {k} to {other}.", "{name} loses {k} of them.",
         "{name} sells {k} {things}."}},
       {Event::kGifts,
        {"Then {n} friends each give {name} {k} {things}.",
         "{name} buys {n} packs of {k} {things}."}},
       {Event::kDouble,
        {"{other} gives {name} as many as {name} has.", "The number of {things} doubles."}},
       {Event::kHalf,
        {"{name} gives half of them to {other}.", "{name} sells half of the {things}."}},
       {Event::kShare, {"{name} puts them into {n} boxes, equally many in each."}}},
      "How many {things} does {name} have now?",
      "How many {things} are in a box?",
      "Start with {k}.",
      " ",
      ".",
      {{Event::kGain, "Add"},
       {Event::kLose, "Take away"},
       {Event::kGifts, "Add"},
       {Event::kDouble, "Double"},
       {Event::kHalf, "Half"},
       {Event::kShare, "Share"}}};
  return language;
}

const Language& chinese() {
  static const Language language = {
      {"小明", "小红", "小华", "小丽", "小军", "小芳", "小刚", "小梅", "小强", "小雨", "小杰",
       "小兰"},
      {"个苹果", "本书", "支笔", "张卡片", "枚硬币", "张邮票", "个鸡蛋", "个贝壳", "个球", "颗糖"},
      {"{name}有{k}{things}。", "{name}一开始有{k}{things}。", "{name}的盒子里有{k}{things}。"},
      {{Event::kGain,
        {"{name}又买了{k}{things}。", "{other}给了{name}{k}{things}。",
         "{name}又找到{k}{things}。"}},
       {Event::kLose,
        {"{name}送给{other}{k}{things}。", "{name}丢了{k}{things}。", "{name}卖掉{k}{things}。"}},
       {Event::kGifts,
        {"{n}位朋友每人送给{name}{k}{things}。", "{name}买了{n}包，每包{k}{things}。"}},
       {Event::kDouble, {"{other}给的和{name}已有的一样多。", "数量变成原来的两倍。"}},
       {Event::kHalf, {"{name}把一半送给{other}。", "{name}卖掉了一半。"}},
       {Event::kShare, {"{name}把它们平均放进{n}个盒子。"}}},
      "{name}现在有多少{things}？",
      "每个盒子里有多少{things}？",
      "开始有{k}。",
      "",
      "。",
      {{Event::kGain, "加"},
       {Event::kLose, "减"},
       {Event::kGifts, "加"},
       {Event::kDouble, "翻倍"},
       {Event::kHalf, "一半"},
       {Event::kShare, "平分"}}};
  return language;
}

using Values = std::map<std::string, std::string>;

std::string filled(std::string_view text, const Values& values) {
  std::string out;
  while (!text.empty()) {
    size_t open = text.find('{'), close = text.find('}', open);
    out += text.substr(0, open);
    if (open == std::string_view::npos) break;
    out += values.at(std::string(text.substr(open + 1, close - open - 1)));
    text.remove_prefix(close + 1);
  }
  return out;
}

constexpr int64_t kMostThings = 200;

// Something that can happen to `have` things.
Event random_event(Rng& rng, int64_t have, bool last) {
  std::vector<Event> possible = {Event::kGain, Event::kGifts};
  if (have > 2) possible.push_back(Event::kLose);
  if (have > 0 && have * 2 <= kMostThings) possible.push_back(Event::kDouble);
  if (have > 0 && have % 2 == 0) possible.push_back(Event::kHalf);
  bool shared = false;
  for (int64_t n = 3; n <= 9; ++n) shared = shared || (have > 0 && have % n == 0);
  if (last && shared) possible.push_back(Event::kShare);
  return pick(possible, rng);
}

struct Happening {
  int64_t k = 0, n = 0, now = 0;
  std::string calculation;
};
Happening happen(Rng& rng, Event event, int64_t have) {
  Happening h;
  switch (event) {
    case Event::kGain:
      h.k = uniform_int(rng, 2, 30);
      h.now = have + h.k;
      h.calculation = fmt::format("{}+{}={}", have, h.k, h.now);
      break;
    case Event::kLose:
      h.k = uniform_int(rng, 1, have - 1);
      h.now = have - h.k;
      h.calculation = fmt::format("{}-{}={}", have, h.k, h.now);
      break;
    case Event::kGifts:
      h.n = uniform_int(rng, 2, 6);
      h.k = uniform_int(rng, 2, 9);
      h.now = have + h.n * h.k;
      h.calculation = fmt::format("{}*{}={} {}+{}={}", h.n, h.k, h.n * h.k, have, h.n * h.k, h.now);
      break;
    case Event::kDouble:
      h.now = have * 2;
      h.calculation = fmt::format("{}*2={}", have, h.now);
      break;
    case Event::kHalf:
      h.now = have / 2;
      h.calculation = fmt::format("{}/2={}", have, h.now);
      break;
    case Event::kShare:
      do h.n = uniform_int(rng, 3, 9);
      while (have % h.n != 0);
      h.now = have / h.n;
      h.calculation = fmt::format("{}/{}={}", have, h.n, h.now);
      break;
  }
  return h;
}

TaskExample make_story(const Language& language, Rng& rng, int events) {
  Values values;
  values["name"] = pick(language.names, rng);
  values["things"] = pick(language.things, rng);
  int64_t have = uniform_int(rng, 3, 30);
  values["k"] = fmt::format("{}", have);
  TaskExample e;
  e.question = filled(pick(language.begin, rng), values);
  e.chain = filled(language.chain_begin, values);
  Event event = Event::kGain;
  for (int i = 0; i < events; ++i) {
    event = random_event(rng, have, i + 1 == events);
    Happening h = happen(rng, event, have);
    do values["other"] = pick(language.names, rng);
    while (values["other"] == values["name"]);
    values["k"] = fmt::format("{}", h.k);
    values["n"] = fmt::format("{}", h.n);
    e.question += language.between + filled(pick(language.events.at(event), rng), values);
    e.chain += fmt::format("{}{}{}{}{}", language.between, language.chain.at(event),
                           language.between, h.calculation, language.behind);
    have = h.now;
  }
  e.question +=
      language.between + filled(event == Event::kShare ? language.ask_share : language.ask, values);
  e.answer = fmt::format("{}", have);
  return e;
}

}  // namespace

std::unique_ptr<Task> make_words_en() {
  return make_generator({"words_en",
                         "a word problem in English",
                         {1, 8, 3, "events"},
                         [](Rng& rng, int level) { return make_story(english(), rng, level); },
                         score_number});
}

std::unique_ptr<Task> make_words_zh() {
  return make_generator({"words_zh",
                         "a word problem in Chinese",
                         {1, 8, 3, "events"},
                         [](Rng& rng, int level) { return make_story(chinese(), rng, level); },
                         score_number});
}

}  // namespace wels
