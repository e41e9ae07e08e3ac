// The cache lines of AttendAhead's pieces, row after row, to be asked for in turn.
class LinesAhead {
 public:
  explicit LinesAhead(const AttendAhead& a) : a_(a), row_((const char*)a.first), rows_(a.rows) {
    begin_piece(0);
  }
  long count() const {
    long lines = 0;
    for (const auto& p : a_.pieces) lines += (p.bytes + 63) / 64;
    return lines * a_.rows;
  }
  // Brings the next n of them, as far as there are so many, to the L2 cache. Inlined, or the sums
  // of the loops that call it would leave their registers.
  inline __attribute__((always_inline)) void ask(long n) {
    for (; n > 0 && rows_ > 0; --n) {
      _mm_prefetch(at_, _MM_HINT_T1);
      at_ += 64;
      if (at_ < end_) continue;
      if (piece_ == 0 && a_.pieces[1].bytes > 0) {
        begin_piece(1);
      } else {
        row_ += a_.row_bytes;
        --rows_;
        begin_piece(0);
      }
    }
  }

 private:
  void begin_piece(int piece) {
    piece_ = piece;
    at_ = row_ + a_.pieces[piece].begin;
    end_ = at_ + a_.pieces[piece].bytes;
  }
  const AttendAhead& a_;
  const char* row_;
  int rows_;
  int piece_;
  const char *at_, *end_;
};
