"""Methods, one file per paper; reached by `_target_` from conf/method/."""
