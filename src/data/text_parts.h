// Documents as training examples: parts of as many tokens as an example may have, cut at ends of
// lines, with a part of the whole held out. What `wels adapt` learns a domain from, and what it
// repeats so that nothing else is forgotten.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

class Tokenizer;

struct TextPart {
  std::string text;
  bool ends = true;      // the document's last part
  int64_t document = 0;  // counts from 0
  uint64_t hash = 0;     // of the document's first piece, by which it is held out
};

// The documents' parts of at most `longest` tokens each, in order. Lines that are longer are cut at
// a blank near the middle, again and again. files: from list_corpus. more() is asked now and then;
// false: ends early. Throws Error as CorpusReader does. longest: 1 at least (CHECK).
std::vector<TextPart> read_text_parts(const std::vector<std::string>& files,
                                      const Tokenizer& tokenizer, int64_t longest,
                                      const std::function<bool()>& more);
// The parts of one text.
std::vector<std::string> cut_text(std::string_view text, const Tokenizer& tokenizer,
                                  int64_t longest);

struct HeldOutParts {
  std::vector<TextPart> train, held_out;
};
// Documents go one way or the other by hash where there are 20 and both ways get some; of fewer,
// the last `share` of all parts is held out. Throws Error(where) where one of the two would be
// empty.
HeldOutParts hold_out(std::vector<TextPart> parts, double share, const std::string& where);

// Parts spread evenly over a corpus, so many that they have `bytes` of text (or all): those of
// lowest hash among windows of about `longest` tokens. Reads everything once; holds `bytes` and one
// piece. Throws as read_text_parts does.
std::vector<TextPart> sample_text_parts(const std::vector<std::string>& files,
                                        const Tokenizer& tokenizer, int64_t longest, int64_t bytes,
                                        const std::function<bool()>& more);

int64_t bytes_of(const std::vector<TextPart>& parts);
// {"text": ..., "ends": ...} a line, as read_chat_data and CorpusReader read it.
std::string json_lines_of(const std::vector<TextPart>& parts);

}  // namespace wels
