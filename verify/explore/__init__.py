"""What `verify explore` shows: one input, what an attack makes of it, and what is proved around it.

    layout, subject     the model, its inputs, how one is drawn
    asking              what a page may ask, checked
    ball, angle         one question answered as it goes: attack, certified intervals, bracket
    ends                both ends of a bracket, which only ever close
    desk                one computation a page, older ones cancelled
    server, page/       the local page; the only part that knows HTTP

Attacks and uncertainty are other packages, so what is used of them is passed in (`tools`).
"""
