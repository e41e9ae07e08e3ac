// What `wels chat` can be told beside questions: /set, /show, /load, ... in the manner of ollama.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "apps/answer_grammar.h"
#include "apps/conversation.h"
#include "engine/draft.h"
#include "engine/sampler.h"
#include "rl/think_bounds.h"

namespace wels {

struct ChatSettings {
  SamplingParams sampling;
  // Names (of /set parameter) of what of it was said, by a flag or here: a server chooses the rest.
  std::set<std::string> given;
  Speculate speculate = Speculate::kNone;
  std::vector<std::string> stop;
  int64_t num_predict = 0;  // tokens of an answer at most; 0: chat models until they stop, base 200
  int64_t num_ctx = 4096;   // tokens of the KV cache
  int64_t longest = 4096;   // what the model can have of it
  ThinkBounds think;        // of a thought
  int64_t rephrase = 0;     // versions of a question that are answered together; 0: none
  GrammarFlags format;      // that answers are held to
  bool hide_thinking = false;
  bool wordwrap = true;   // on a terminal
  bool thinking = false;  // where the template has the choice
  bool verbose = false;   // counts and speeds after an answer
  bool history = true;    // the arrow keys bring inputs back
};

// Throws Error where a setting says something of thoughts or questions that this conversation's
// model does not have: bounds without a thought's marks, either without a template, more than a
// budget of a server.
void require_thoughts(const ChatSettings& settings, const Conversation& talk);

struct ChatState {
  ChatSettings settings;
  Conversation talk;
  std::string info;          // of the model, for /show info
  std::string thought = {};  // of the last answer
  bool conversing = false;   // commands can be given between the answers
  // The command that shows the thought; empty where none can be given.
  std::string unfold() const { return conversing ? "/show thinking" : ""; }
  bool leave = false;  // /bye was said
};

// Does what the line says, which begins with "/", and returns the text to show. Throws Error, with
// nothing changed, where it can't.
std::string run_command(ChatState& state, const std::string& line);

// Sets a parameter by name, as /set parameter does.
void set_parameter(ChatSettings& settings, const std::string& name, const std::string& value);

}  // namespace wels
