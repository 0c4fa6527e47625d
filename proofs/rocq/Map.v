(** * The virtual machine map (section 4 of the paper)

    f puts a virtual machine's state S and the control program's part P into the real machine:

        real storage   0        1       2          3 … k-1   k … k+w-1   k+w …
                       scratch  entry   M, R of S  rest      E of S      behind
        mode           user
        P              that of S
        R = (l, b)     (l + k, min (b, w - l))

    Choices, each shown to matter in [Counters/Choices.v]:
    - The bound is cut to what is left of the virtual storage.  With the paper's (l + k, b) a guest
      whose bound reaches beyond its storage gets out ([uncut_bound]).
    - M and R of the guest are noted in real storage: the real M is user and the real bound is cut, so
      that without the note f is not one-one ([no_note]).
    - The note cannot be in location 0, which every trap overwrites, nor in 1: so k >= 3
      ([note_in_scratch]). *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes.
Import ListNotations.

(** What the control program keeps for itself: location 1, locations 3 to k - 1, and what lies behind
    the virtual machine. *)
Record control (word : Type) : Type := Control { entry : word; rest : list word; behind : list word }.
Arguments Control {word}.
Arguments entry {word}.
Arguments rest {word}.
Arguments behind {word}.

Definition k {word} (p : control word) : nat := 3 + length (rest p).

Section Map.
  Variable t : third_generation.
  Notation state := (storage_state (word t)).

  Definition note_word (S : state) : word t := of_psw t (Psw (M S) 0 (R S)).

  Definition low (S : state) (p : control (word t)) : list (word t) :=
    blank t :: entry p :: note_word S :: rest p.

  Definition cut (r : relocation) (w start : nat) : relocation := Rel (start + l r) (Nat.min (b r) (w - l r)).

  Definition f (S : state) (p : control (word t)) : state :=
    St (low S p ++ E S ++ behind p) user (P S) (cut (R S) (length (E S)) (k p)).

  (** What the control program reads off the real machine when a trap has stored the PSW in E[0]. *)
  Definition recover_guest (p : control (word t)) (h : state) : state :=
    let noted := to_psw t (nth 2 (E h) (blank t)) in
    St (firstn (length (E h) - k p - length (behind p)) (skipn (k p) (E h)))
       (psw_M noted) (psw_P (to_psw t (nth 0 (E h) (blank t)))) (psw_R noted).

  (** The control program's own storage, less the scratch and the note. *)
  Definition kept (p : control (word t)) (h : state) : word t * list (word t) * list (word t) :=
    (nth 1 (E h) (blank t), firstn (length (rest p)) (skipn 3 (E h)), skipn (length (E h) - length (behind p)) (E h)).

  Lemma low_length S p : length (low S p) = k p.
  Proof. reflexivity. Qed.

  Lemma f_length S p : length (E (f S p)) = k p + length (E S) + length (behind p).
  Proof. unfold f. cbn [E]. rewrite !app_length, low_length. lia. Qed.

  (** The trap that ends direct execution stores the PSW of f(S) and nothing else; the control program
      finds S. *)
  Lemma recover_after_trap S p : recover_guest p (exchange t (f S p)) = S.
  Proof.
    unfold recover_guest. rewrite exchange_length, f_length.
    unfold exchange, f, status, low, set. cbn [E M P R skipn nth firstn app].
    unfold note_word. rewrite !to_of. cbn [psw_M psw_P psw_R].
    replace (k p + length (E S) + length (behind p) - k p - length (behind p)) with (length (E S)) by lia.
    change (k p) with (Datatypes.S (Datatypes.S (Datatypes.S (length (rest p))))). cbn [skipn].
    rewrite skipn_app, skipn_all, Nat.sub_diag. cbn [skipn app].
    rewrite firstn_app, firstn_all, Nat.sub_diag. cbn [firstn]. rewrite app_nil_r.
    now destruct S.
  Qed.

  (** f is one-one. *)
  Lemma f_one_one S S' p : f S p = f S' p -> S = S'.
  Proof.
    intros H. rewrite <- (recover_after_trap S p), <- (recover_after_trap S' p). now rewrite H.
  Qed.

  Lemma kept_layout (x y : word t) e p m' pc r :
    kept p (St (x :: entry p :: y :: rest p ++ e ++ behind p) m' pc r) = (entry p, rest p, behind p).
  Proof.
    unfold kept. cbn [E nth length skipn].
    rewrite firstn_app, firstn_all, Nat.sub_diag. cbn [firstn]. rewrite app_nil_r.
    rewrite !app_length.
    replace (Datatypes.S (Datatypes.S (Datatypes.S (length (rest p) + (length e + length (behind p))))) - length (behind p))
      with (Datatypes.S (Datatypes.S (Datatypes.S (length (rest p) + length e)))) by lia.
    cbn [skipn].
    now rewrite app_assoc, <- app_length, skipn_app, skipn_all, Nat.sub_diag.
  Qed.

  (** A virtual machine in place leaves the control program's storage as it is, and a trap does. *)
  Lemma kept_f S p : kept p (f S p) = (entry p, rest p, behind p).
  Proof. apply kept_layout. Qed.

  Lemma kept_exchange S p : kept p (exchange t (f S p)) = (entry p, rest p, behind p).
  Proof. apply kept_layout. Qed.

  (** ** What the program sees on the real machine is what it sees on the virtual one. *)

  Lemma skipn_low S p n (e : list (word t)) : skipn (k p + n) (low S p ++ e) = skipn n e.
  Proof.
    rewrite skipn_add, skipn_app, <- (low_length S p), skipn_all, Nat.sub_diag. reflexivity.
  Qed.

  Lemma view_cut (r : relocation) (e e' : list (word t)) :
    firstn (Nat.min (b r) (length e - l r)) (skipn (l r) (e ++ e')) = view r e.
  Proof.
    unfold view. rewrite skipn_app, firstn_app, skipn_length.
    replace (Nat.min (b r) (length e - l r) - (length e - l r)) with 0 by lia.
    cbn [firstn]. rewrite app_nil_r, <- firstn_firstn. f_equal.
    rewrite <- (skipn_length (l r) e). apply firstn_all.
  Qed.

  Lemma view_f S p : view (R (f S p)) (E (f S p)) = view (R S) (E S).
  Proof.
    unfold view at 1, f, cut. cbn [R E l b]. rewrite skipn_low. apply view_cut.
  Qed.

  Lemma f_alike S p : alike t S (f S p).
  Proof. split; [reflexivity | symmetry; apply view_f]. Qed.

  (** R is inside the virtual machine: no location that the program reaches is the control program's. *)
  Lemma f_inside S p a :
    a < b (R (f S p)) -> k p <= l (R (f S p)) + a < k p + length (E S).
  Proof. unfold f, cut. cbn [R l b]. lia. Qed.

  (** ** A change within reach is the same change in both machines. *)

  Lemma before_f S p : before (R (f S p)) (E (f S p)) = low S p ++ firstn (l (R S)) (E S ++ behind p).
  Proof.
    unfold before, f, cut. cbn [R E l b]. rewrite firstn_app, low_length.
    rewrite firstn_all2 by (rewrite low_length; lia). f_equal. f_equal. lia.
  Qed.

  Lemma behind_f S p :
    behind_view (R (f S p)) (E (f S p)) =
    skipn (l (R S) + Nat.min (b (R S)) (length (E S) - l (R S))) (E S ++ behind p).
  Proof.
    unfold behind_view, f, cut. cbn [R E l b]. rewrite <- Nat.add_assoc. apply skipn_low.
  Qed.

  (** If a step changes S to S1 and f(S) to h, both leaving alone what is out of reach and R, and the
      program sees the same in both, then h has the storage of f(S1). *)
  Lemma storage_of_step S S1 h p :
    R S1 = R S -> R h = R (f S p) -> M S1 = M S ->
    length (E S1) = length (E S) ->
    leaves_alone t S S1 -> leaves_alone t (f S p) h ->
    view (R S) (E S1) = view (R (f S p)) (E h) ->
    E h = low S1 p ++ E S1 ++ behind p.
  Proof.
    intros RS Rh MS Len [B1 B2] [H1 H2] V.
    rewrite (split_view (R (f S p)) (E h)), H1, H2, <- V, before_f, behind_f.
    replace (low S1 p) with (low S p) by (unfold low, note_word; now rewrite RS, MS).
    rewrite <- !app_assoc. f_equal.
    rewrite (split_view (R S) (E S1)) at 2. rewrite B1, B2.
    unfold before, behind_view.
    destruct (le_lt_dec (l (R S)) (length (E S))) as [In | Out].
    - rewrite firstn_app. replace (l (R S) - length (E S)) with 0 by lia.
      cbn [firstn]. rewrite app_nil_r, <- !app_assoc. do 2 f_equal.
      rewrite skipn_app.
      replace (l (R S) + Nat.min (b (R S)) (length (E S) - l (R S)) - length (E S)) with 0 by lia.
      cbn [skipn]. f_equal.
      destruct (le_lt_dec (b (R S)) (length (E S) - l (R S))).
      + f_equal. lia.
      + rewrite !skipn_all2 by lia. reflexivity.
    - assert (view (R S) (E S1) = []) as ->.
      { unfold view. rewrite skipn_all2 by lia. apply firstn_nil. }
      replace (Nat.min (b (R S)) (length (E S) - l (R S))) with 0 by lia.
      rewrite Nat.add_0_r. cbn [app]. rewrite firstn_skipn.
      rewrite firstn_all2, skipn_all2, app_nil_r by lia. reflexivity.
  Qed.
End Map.
