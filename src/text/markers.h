// The markers of DeepSeek's chats and documents, as their vocabularies spell them. Most are tokens
// of their own there; a vocabulary without one has its characters.
#pragma once
#include <string_view>

namespace wels {

inline constexpr std::string_view kBosMark = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEosMark = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kPadMark = "<｜▁pad▁｜>";
inline constexpr std::string_view kUserMark = "<｜User｜>";
inline constexpr std::string_view kAssistantMark = "<｜Assistant｜>";
inline constexpr std::string_view kAssistantName = "Assistant:";  // V2's, in plain text

// A thought.
inline constexpr std::string_view kThinkBegin = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";

// Calls of tools and what they gave.
inline constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kToolSep = "<｜tool▁sep｜>";
inline constexpr std::string_view kOutputsBegin = "<｜tool▁outputs▁begin｜>";
inline constexpr std::string_view kOutputsEnd = "<｜tool▁outputs▁end｜>";
inline constexpr std::string_view kOutputBegin = "<｜tool▁output▁begin｜>";
inline constexpr std::string_view kOutputEnd = "<｜tool▁output▁end｜>";

// A document with a hole.
inline constexpr std::string_view kFimBegin = "<｜fim▁begin｜>";
inline constexpr std::string_view kFimHole = "<｜fim▁hole｜>";
inline constexpr std::string_view kFimEnd = "<｜fim▁end｜>";

}  // namespace wels
