// TensorBoard event files, so that TensorBoard, W&B and everything else that reads them can watch a
// run.
//
// A file is a row of records (TensorFlow's record_writer.cc), numbers little-endian:
//   u64 n · u32 masked crc32c of those 8 bytes · n bytes of data · u32 masked crc32c of the data
//   masked(c) = rotate_right(c, 15) + 0xa282ead8: a CRC over bytes that hold CRCs would be weak
// and the data is an Event message (event.proto, summary.proto), encoded by hand:
//   Event:   1 wall_time double · 2 step int64 · 3 file_version string (first record:
//   "brain.Event:2") · 5 summary Summary: 1 value, repeated   Value: 1 tag string · 2 simple_value
//   float
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wels {

// CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected; RFC 3720 B.4). crc32c("123456789") =
// 0xE3069283.
uint32_t crc32c(std::string_view bytes);
uint32_t masked_crc32c(std::string_view bytes);

struct TfEvent {
  double wall_time = 0;  // seconds since 1970
  int64_t step = 0;
  std::string file_version;  // first record only
  std::vector<std::pair<std::string, float>> scalars;
};

// Reads the records that are whole; *valid_bytes: the length of the file up to there (all of it if
// nothing is broken). Throws Error if the file can't be read. Unknown protobuf fields are passed
// over.
std::vector<TfEvent> read_tfevents(const std::string& path, int64_t* valid_bytes = nullptr);

// Appends to <folder>/events.out.tfevents.wels.
class TfEventsWriter {
 public:
  // keep_steps as in MetricsWriter: on resume the checkpoint's step, later records are cut off; -1:
  // a new run.
  TfEventsWriter(const std::string& folder, int64_t keep_steps);
  ~TfEventsWriter();
  TfEventsWriter(const TfEventsWriter&) = delete;
  // One record with all scalars but "time", which is the wall time and would not be one as a float;
  // values that aren't finite are kept (TensorBoard shows them as
  // gaps). Throws Error on a full disk; the file then ends with the record before.
  void write(int64_t step, double wall_time,
             std::span<const std::pair<std::string, double>> scalars);

 private:
  void append(const std::string& event);
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

}  // namespace wels
